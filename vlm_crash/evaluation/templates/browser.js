// The list of clips, its filters, and the clip that is open: frames, truth beside answer, probabilities, marks.
(() => {
  const { el, button, byId, data } = page, { pictures, table, percent } = clipView, clips = data.clips;
  const list = byId("list"), detail = byId("detail"), shown = byId("shown"), filters = byId("filters");
  const boxes = ["by", "event", "status", "low", "high", "order", "text"].map(byId).filter(Boolean);
  // A labeller must not learn from the list what truth and answers are: what would tell is off (marks.js empties it).
  const telling = ["by", "low", "high", "order"];
  const setting = (id) => (!byId(id) || (marks.isBlind() && telling.includes(id)) ? "" : byId(id).value);
  const radios = [...document.querySelectorAll("input[name=show]")];
  const show = () => (radios.length && !marks.isBlind() ? radios.find((radio) => radio.checked).value : "all");
  let order = clips.map((_, n) => n), current = -1;

  // ---- which clips, in which order
  const looked = (clip) => (setting("by") ? clip.rows.filter((row) => row.name === setting("by")) : clip.rows);
  // "right" and "wrong" speak of the chosen field, or of the whole record; a field without a truth is neither.
  const fits = (clip, row) => {
    if (show() === "wrong" && row.mark !== "wrong") return false;
    if (show() === "right" && row.mark !== "right") return false;
    if (!setting("low") && !setting("high")) return true;
    const [low, high] = bounds();
    return row.p !== undefined && row.p >= low && row.p <= high;
  };
  // Between 0 and 1, the smaller first, whatever the boxes hold; `tidy` writes it back once a box is left.
  const share = (id, other) => (setting(id) ? Math.min(1, Math.max(0, Number(setting(id)))) : other);
  const bounds = () => [share("low", 0), share("high", 1)].sort((a, b) => a - b);
  const tidy = () => {
    const [low, high] = bounds(), [from, to] = [setting("low"), setting("high")];
    const isSwapped = share("low", 0) > share("high", 1);
    if (from || isSwapped) byId("low").value = low;
    if (to || isSwapped) byId("high").value = high;
    return setting("low") !== from || setting("high") !== to;
  };
  const words = clips.map(() => null); // of a clip, in small letters; made on the first search
  const says = (n, text) => {
    if (marks.isBlind()) return clips[n].key.toLowerCase().replaceAll("_", " ").includes(text);
    if (words[n] === null) {
      const clip = clips[n], rows = clip.rows.map((row) => [row.truth, row.answer, row.note].join("\n"));
      words[n] = [clip.key, ...rows].join("\n").toLowerCase().replaceAll("_", " ");
    }
    return words[n].includes(text);
  };
  const matches = (n, text) => {
    const clip = clips[n], status = setting("status");
    if (setting("event") && clip.event !== setting("event")) return false;
    if (status === "marked" ? !marks.has(clip) : status && clip.status !== status) return false;
    if (show() === "right" && !setting("by") && !clip.all_right) return false;
    if (show() === "wrong" && !setting("by") && clip.all_right) return false;
    const all = show() === "all" && !setting("low") && !setting("high");
    if (!all && !looked(clip).some((row) => fits(clip, row))) return false;
    return !text || says(n, text);
  };
  const wrongest = (clip) => looked(clip).filter((row) => row.mark === "wrong" && row.p !== undefined)
    .reduce((best, row) => (best && best.p >= row.p ? best : row), null);
  const ordering = () => (marks.isBlind() ? "given" : "") || setting("order") || (byId("order").dataset.first);
  const rank = (clip) => {
    if (ordering() === "disagree") { const row = wrongest(clip); return row ? -row.p : 2; }
    const known = looked(clip).filter((row) => row.p !== undefined).map((row) => row.p);
    return known.length ? Math.min(...known) : 2;
  };
  const filter = () => {
    const text = setting("text").toLowerCase().replaceAll("_", " ");
    order = clips.map((_, n) => n).filter((n) => matches(n, text));
    if (ordering() !== "given") {
      const ranks = clips.map(rank);
      order.sort((a, b) => ranks[a] - ranks[b] || a - b);
    }
    list.replaceChildren(...order.map(item));
    list.scrollTop = 0;
    shown.value = order.length + " of " + clips.length;
    open(order.includes(current) ? current : order.length ? order[0] : -1);
  };

  // ---- the list; what is not on the screen is not laid out (content-visibility)
  const item = (n) => {
    const clip = clips[n], li = el("li"), press = button("", "");
    li.dataset.clip = n;
    const name = el("span", "name", clip.video);
    name.title = clip.video;
    const chip = el("span", "chip", clip.event_title);
    if (marks.has(clip)) chip.append(" ", el("span", "has-mark", marks.isBlind() ? "labelled" : "marked"));
    press.append(name, chip, el("span", "state " + (marks.isBlind() ? "" : clip.state), stateOf(clip)));
    li.append(press);
    return li;
  };
  const stateOf = (clip) => {
    if (marks.isBlind()) return "";
    const row = ordering() === "disagree" || setting("by") ? wrongest(clip) : null;
    return row ? `${row.label}: ${row.answer}, not ${row.truth} (${percent(row.p)})` : clip.state_text;
  };
  const itemOf = (n) => list.children[order.indexOf(n)];
  const step = (way) => {
    const at = order.indexOf(current) + way;
    if (at < 0 || at >= order.length) return false;
    open(order[at]);
    remember();
    return true;
  };

  // A mark was set or removed: its clip is drawn anew, the reader stays where they were.
  editor.onSave((field) => {
    const n = current;
    if (itemOf(n)) itemOf(n).replaceWith(item(n));
    const top = detail.scrollTop;
    open(n);
    detail.scrollTop = top;
    const press = detail.querySelector(`tr[data-field="${CSS.escape(field)}"] .marker`);
    if (press) press.focus({ preventScroll: true });
  });

  const open = (n) => {
    const left = current >= 0 && itemOf(current);
    if (left) { left.classList.remove("on"); left.firstChild.removeAttribute("aria-current"); }
    current = n;
    if (n < 0) { detail.replaceChildren(el("p", "empty", "No clip fits these filters.")); return; }
    const clip = clips[n], more = page.read("clip-" + n), mine = itemOf(n);
    if (mine) {
      mine.classList.add("on");
      mine.firstChild.setAttribute("aria-current", "true");
      const top = mine.offsetTop - list.offsetTop;
      if (top < list.scrollTop || top + mine.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top - list.clientHeight / 3;
    }
    if (!more) { detail.replaceChildren(el("p", "empty", "The page is still being read.")); return; }
    const at = order.indexOf(n), back = button("‹ Previous", "plain", () => step(-1)), after = button("Next ›", "plain", () => step(1));
    back.disabled = at <= 0; after.disabled = at < 0 || at >= order.length - 1;
    const title = [data.truths ? clip.event_title : "", clip.video].filter(Boolean).join(" · ");
    const meta = el("p", "meta", more.path);
    if (more.link) {
      const link = el("a", "", "Open the clip");
      link.href = more.link; link.target = "_blank"; link.rel = "noopener";
      meta.append(more.path ? " · " : "", link);
    }
    const place = el("span", "place", at < 0 ? "not in this list" : `${at + 1} of ${order.length}`);
    const parts = [el("div", "turn", back, place, after), el("h3", "", title), meta];
    if (more.problem && !marks.isBlind()) parts.push(el("p", "problem", more.problem));
    parts.push(pictures(more), table(clip, more));
    if (more.response && !marks.isBlind()) parts.push(el("details", "", el("summary", "", "The answer as the model wrote it"), el("pre", "", more.response)));
    detail.replaceChildren(...parts.filter(Boolean));
    detail.scrollTop = 0;
  };

  // ---- the address: a page can be handed on as it is seen
  const lost = byId("lost");
  const remember = () => {
    const state = new URLSearchParams();
    lost.hidden = true;
    if (marks.isBlind()) state.set("label", "1");
    if (show() !== "all") state.set("show", show());
    for (const box of boxes) if (setting(box.id)) state.set(box.id, box.value);
    if (current >= 0) state.set("clip", clips[current].key);
    try { history.replaceState(null, "", "#" + state); } catch (error) { /* some browsers refuse it for a page opened from disk */ }
  };
  const restore = () => {
    lost.hidden = true;
    if (location.hash && !location.hash.includes("=")) { // a section of the page
      const isThere = location.hash === "#" || byId(location.hash.slice(1));
      if (isThere) return false;
      filter();
      return miss([`the section “${location.hash.slice(1)}”`]);
    }
    const state = new URLSearchParams(location.hash.slice(1)), missing = [];
    if (state.get("label") === "1") marks.hide(); // a link into labelling; only a reader's own click leads out of it
    const wanted = radios.find((radio) => radio.value === (state.get("show") || "all")) || radios[0];
    if (wanted) wanted.checked = true;
    if (radios.length && state.get("show") && wanted.value !== state.get("show")) missing.push(`show=${state.get("show")}`);
    for (const box of boxes) {
      const value = state.get(box.id) || "";
      box.value = value;
      if (box.value !== value) { box.value = ""; missing.push(`${NAMES[box.id]} “${value}”`); }
    }
    const isMended = tidy();
    marks.forget();
    const n = clips.findIndex((clip) => clip.key === state.get("clip"));
    if (state.get("clip") && n < 0) missing.push(`the clip “${state.get("clip")}”`);
    if (n >= 0) current = n;
    filter();
    if (n >= 0 && current !== n) open(n); // a link leads to its clip though the filters leave it out
    if (missing.length) return miss(missing);
    if (isMended) remember();
    return n >= 0;
  };
  const NAMES = { by: "the field", event: "the event", status: "the status", low: "the confidence", high: "the confidence", order: "the order" };
  const miss = (missing) => {
    remember(); // the address then says what is seen
    lost.textContent = `The address asks for what this page does not have: ${missing.join(", ")}. All else of it holds.`;
    lost.hidden = false;
    return true;
  };

  filters.addEventListener("input", () => { filter(); remember(); });
  filters.addEventListener("change", () => { tidy(); remember(); });
  filters.addEventListener("reset", () => setTimeout(() => { filter(); remember(); }));
  marks.onChange(() => { filter(); remember(); });
  list.addEventListener("click", (click) => {
    const li = click.target.closest("li");
    if (li) { open(Number(li.dataset.clip)); remember(); }
  });
  list.addEventListener("keydown", (key) => {
    const way = { ArrowDown: 1, ArrowUp: -1 }[key.key];
    if (!way) return;
    key.preventDefault();
    if (step(way)) itemOf(current).firstChild.focus();
  });
  const mark = () => {
    const presses = [...detail.querySelectorAll("tr.wrong .marker")];
    const next = presses.find((press) => press.getAttribute("aria-expanded") === "false" && !press.classList.contains("on"));
    for (const press of presses) if (press.getAttribute("aria-expanded") === "true") press.click();
    if (next) next.click();
  };
  const keys = { j: () => step(1), k: () => step(-1), "/": () => byId("text").focus(), m: mark, "?": () => byId("help").showModal() };
  document.addEventListener("keydown", (key) => {
    if (key.ctrlKey || key.metaKey || key.altKey || key.target.closest("input, select, textarea, dialog")) return;
    if (!keys[key.key]) return;
    key.preventDefault();
    keys[key.key]();
  });
  byId("keys").addEventListener("click", keys["?"]);
  addEventListener("hashchange", () => { if (restore()) byId("clips").scrollIntoView(); });
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", () => { if (!detail.querySelector("h3")) open(current); });
  if (restore()) byId("clips").scrollIntoView();
  else if (!order.length || !list.children.length) filter();
})();
