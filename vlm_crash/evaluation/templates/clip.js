// One clip: its frames (decoded only now), truth beside answer, probabilities as bars.
const clipView = (() => {
  const { el, data } = page;
  const percent = (p) => (p >= 0.9995 ? "100 %" : (100 * p).toFixed(p < 0.1 ? 1 : 0) + " %");

  const bars = (terms) => {
    const box = el("span", "bars");
    const seen = terms.filter(([, p], k) => k === 0 || (k < 4 && p >= 0.005));
    for (const [term, p] of seen) {
      const bar = el("i", "");
      bar.style.width = Math.max(1, 100 * p) + "%";
      box.append(el("span", "term", term), el("span", "p", percent(p)), el("span", "track", bar));
    }
    const rest = terms.slice(seen.length).filter(([, p]) => p >= 0.005);
    if (rest.length) box.append(el("span", "more", `${rest.length} more, ${percent(rest.reduce((sum, one) => sum + one[1], 0))} together`));
    return box;
  };
  // A text of many kilobytes would push all that is below it out of sight.
  const LONG = 800;
  const folded = (text) => {
    if (!text || text.length <= LONG) return text;
    const box = el("span", "long", text), all = el("button", "plain", `show all ${text.length} characters`);
    all.type = "button";
    all.addEventListener("click", () => { box.classList.add("whole"); all.remove(); });
    return el("span", "", box, all);
  };
  const heading = (title) => { const th = el("th", "", title); th.scope = "col"; return th; };
  const tableRow = (clip, one, more) => {
    const tr = el("tr", one.mark + (one.name === "event" ? " event" : ""));
    const head = el("th", "", one.label), said = el("td", "said", folded(one.answer));
    head.scope = "row";
    tr.dataset.field = one.name;
    if (one.note) said.append(el("small", "", folded(one.note)));
    if (more.roles[one.name]) said.append(el("small", "swapped", "Roles: " + more.roles[one.name]));
    const terms = more.probabilities[one.name];
    if (terms) said.append(bars(terms));
    else if (one.p !== undefined && one.name !== "event") said.append(el("small", "", "confidence " + percent(one.p)));
    if (one.as_predicted !== undefined) said.append(el("small", "", "calibrated; as predicted " + percent(one.as_predicted)));
    tr.append(head);
    if (data.truths) tr.append(el("td", "", folded(one.truth)));
    tr.append(said);
    if (data.truths) tr.append(el("td", "mark", el("span", "sign", one.sign), marks.isThere ? editor.opener(clip, one, tr) : null));
    return tr;
  };

  const pictures = (more) => {
    if (!more.images.length) return more.no_frames ? el("p", "meta", "No frames: " + more.no_frames) : null;
    const strip = el("div", "frames");
    more.images.forEach((image, k) => {
      const img = el("img");
      img.alt = "frame at " + more.times[k] + " s";
      img.src = "data:image/jpeg;base64," + image;
      strip.append(el("figure", "", img, el("figcaption", "", more.times[k] + " s")));
    });
    return strip;
  };
  const table = (clip, more) => {
    const found = el("table", "answers"), head = el("tr"), body = el("tbody"), blind = marks.isBlind();
    const rows = blind ? clip.rows.filter((one) => one.name !== "event") : clip.rows;
    for (const title of blind ? ["Field", "Your label"] : data.truths ? ["Field", "Truth", "Answer", "Verdict"] : ["Field", "Answer"]) head.append(heading(title));
    found.append(el("thead", "", head), body);
    body.append(...rows.map((one) => (blind ? editor.blindRow(clip, one) : tableRow(clip, one, more))));
    if (blind) found.classList.add("blind");
    if (!data.truths) found.classList.add("plain");
    return found;
  };
  return { pictures, table, percent };
})();
