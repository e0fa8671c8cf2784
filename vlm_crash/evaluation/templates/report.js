"use strict";
// Texts of clips and answers reach the page only through textContent; nothing is built from strings of HTML.
(() => {
  const clips = JSON.parse(document.getElementById("data").textContent);
  const items = [...document.querySelectorAll("#list > li")];
  const list = document.getElementById("list"), detail = document.getElementById("detail");
  const by = document.getElementById("by"), event = document.getElementById("event"), name = document.getElementById("name");
  const shown = document.getElementById("shown"), filters = document.getElementById("filters");
  const radios = [...document.querySelectorAll("input[name=show]")];
  let current = -1;

  const el = (tag, cls, text) => {
    const node = document.createElement(tag);
    if (cls) node.className = cls;
    if (text !== undefined && text !== null) node.textContent = text;
    return node;
  };
  const show = () => radios.find((radio) => radio.checked).value;

  // "right" and "wrong" speak of the chosen field, of the event, or of the whole record. Fields without a truth are neither.
  const verdict = (clip) => {
    if (by.value === "event") return clip.event_told ? null : clip.event_right;
    if (by.value) {
      const field = clip.fields.find((one) => one.name === by.value);
      return field && field.mark !== "out" && field.mark !== "text" ? field.mark === "right" : null;
    }
    return clip.all_right;
  };
  const matches = (clip) => {
    if (event.value && clip.event !== event.value) return false;
    if (name.value && !clip.video.toLowerCase().includes(name.value.toLowerCase())) return false;
    if (show() === "failed") return clip.failed;
    if (show() === "all") return true;
    return verdict(clip) === (show() === "right");
  };
  const remember = () => {
    const state = new URLSearchParams();
    if (show() !== "all") state.set("show", show());
    for (const box of [by, event, name]) if (box.value) state.set(box.id, box.value);
    if (current >= 0) state.set("clip", clips[current].key);
    try { history.replaceState(null, "", "#" + state); } catch (error) { /* some browsers refuse it for a page opened from disk */ }
  };
  const filter = () => {
    let count = 0, first = -1;
    items.forEach((item, n) => {
      item.hidden = !matches(clips[n]);
      if (!item.hidden) { count += 1; if (first < 0) first = n; }
    });
    shown.value = count + " of " + clips.length;
    if (current < 0 || items[current].hidden) open(first);
  };

  // On a page without truths (truth: null) a row is the field and the answer alone.
  const row = (label, kind, truth, answer, note, mark) => {
    const tr = el("tr", kind);
    const head = el("th", "", label);
    head.scope = "row";
    const said = el("td", "said", answer);
    if (note) said.append(el("small", "", note));
    tr.append(head);
    if (truth !== null) tr.append(el("td", kind === "out" ? "out" : "", truth));
    tr.append(said);
    if (truth !== null) tr.append(el("td", "mark", mark));
    return tr;
  };
  const open = (n) => {
    if (current >= 0) items[current].classList.remove("on");
    current = n;
    detail.replaceChildren();
    if (n < 0) { detail.append(el("p", "empty", "No clip fits these filters.")); return; }
    items[n].classList.add("on");
    const clip = clips[n];
    const title = clip.event_title === null ? clip.video : clip.event_title + " · " + clip.video;
    detail.append(el("h3", "", title), el("p", "meta", clip.path));
    if (clip.problem) detail.append(el("p", "problem", clip.problem));
    const frames = JSON.parse(document.getElementById("frames-" + n).textContent);
    if (frames.images.length) {
      const strip = el("div", "frames");
      frames.images.forEach((data, k) => {
        const img = el("img");
        img.src = data;
        img.alt = "frame at " + frames.times[k] + " s";
        img.title = frames.times[k] + " s";
        strip.append(img);
      });
      detail.append(strip);
    } else if (frames.reason) detail.append(el("p", "meta", "No frames: " + frames.reason));
    const table = el("table", "answers"), head = el("tr"), body = el("tbody"), thead = el("thead");
    const truths = clip.event_title !== null;
    for (const title of truths ? ["", "Truth", "Answer", ""] : ["", "Answer"]) head.append(el("th", "", title));
    thead.append(head);
    const right = clip.event_right ? "right" : "wrong";
    if (!truths) body.append(row("Event", "event", null, clip.said_event, clip.event_note, ""));
    else body.append(clip.event_told
      ? row("Event", "event out", clip.event_title, clip.said_event, "the model was told the event", "")
      : row("Event", "event " + right, clip.event_title, clip.said_event, clip.event_note, clip.event_right ? "✓" : "✕ wrong"));
    for (const one of clip.fields) body.append(row(one.label, one.mark, one.truth, one.answer, one.note, one.sign));
    table.append(thead, body);
    detail.append(table);
    if (clip.response) {
      const more = el("details");
      more.append(el("summary", "", "The answer as the model wrote it"), el("pre", "", clip.response));
      detail.append(more);
    }
    detail.scrollTop = 0;
  };

  const restore = () => {
    const state = new URLSearchParams(location.hash.slice(1));
    const wanted = radios.find((radio) => radio.value === state.get("show"));
    if (wanted) wanted.checked = true;
    for (const box of [by, event, name]) if (state.has(box.id)) box.value = state.get(box.id);
    const n = clips.findIndex((clip) => clip.key === state.get("clip"));
    if (n >= 0) open(n);
  };
  filters.addEventListener("input", () => { filter(); remember(); });
  list.addEventListener("click", (click) => {
    const item = click.target.closest("li");
    if (item) { open(items.indexOf(item)); remember(); }
  });
  list.addEventListener("keydown", (key) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[key.key];
    if (!step) return;
    key.preventDefault();
    let n = current + step;
    while (n >= 0 && n < items.length && items[n].hidden) n += step;
    if (n >= 0 && n < items.length) { open(n); items[n].firstElementChild.focus(); remember(); }
  });
  restore();
  filter();
})();
