// What a reader says of the truth: which value of a field is right, or, without seeing the answers, what it is.
// Kept by the browser where it keeps anything of a page opened from disk; taken away as a CSV.
const marks = (() => {
  const { byId } = page, panel = byId("marks");
  const COLUMNS = ["event", "video", "field", "old", "new", "note", "annotator"];
  const place = "vlm_crash marks " + page.data.id;
  const state = { annotator: "", corrections: {}, labels: {} };
  let keeps = false, saved = true, listen = () => {};

  const id = (clip, field) => JSON.stringify([clip.event, clip.video, field]);
  const isBlind = () => Boolean(panel) && byId("blind").checked;
  const kind = () => (isBlind() ? "labels" : "corrections");
  const chosen = () => state[kind()];
  const get = (clip, field) => chosen()[id(clip, field)];
  const has = (clip) => clip.rows.some((row) => get(clip, row.name));

  // Labelling hides all that tells a truth or an answer, and empties the filters that would sort by them.
  const forget = () => {
    const blind = isBlind(), text = byId("text");
    document.documentElement.classList.toggle("labelling", blind);
    for (const box of document.querySelectorAll(".filters .sighted :is(input, select)")) {
      box.disabled = blind;
      if (!blind) continue;
      if (box.type === "radio") box.checked = box.value === "all";
      else box.value = "";
    }
    for (const option of byId("status").options) option.hidden = option.disabled = blind && !["", "marked"].includes(option.value);
    if (blind && byId("status").value !== "marked") byId("status").value = "";
    if (!text.dataset.hint) text.dataset.hint = text.placeholder;
    text.placeholder = blind ? "clip" : text.dataset.hint;
  };
  const hide = () => { if (panel && !isBlind()) { byId("blind").checked = true; tell(); } };

  const keep = () => {
    try {
      localStorage.setItem(place, JSON.stringify(state));
      keeps = localStorage.getItem(place) !== null;
    } catch (error) { keeps = false; }
  };
  const restore = () => {
    try {
      const found = JSON.parse(localStorage.getItem(place) || "{}");
      for (const key of ["corrections", "labels"]) if (found[key] && typeof found[key] === "object") Object.assign(state[key], found[key]);
      if (typeof found.annotator === "string") state.annotator = found.annotator;
    } catch (error) { /* nothing is kept, or what is kept is not ours */ }
  };
  const tell = (text) => {
    const n = Object.keys(chosen()).length, what = isBlind() ? "label" : "mark";
    byId("marked").value = n ? `${n} ${what}${n === 1 ? "" : "s"}` : `no ${what}s yet`;
    byId("download").disabled = byId("clear").disabled = n === 0;
    byId("download").textContent = `Download ${kind()}.csv`;
    byId("kept").textContent = text || (keeps ? "Kept by this browser; download them to hand them on."
      : "This browser keeps nothing of a page opened from disk: download them before you close it.");
  };
  const changed = (text) => { saved = false; keep(); tell(text); };
  const set = (clip, field, old, value, note) => { chosen()[id(clip, field)] = { old, new: value, note }; changed(); };
  const remove = (clip, field) => { delete chosen()[id(clip, field)]; changed(); };

  // RFC 4180: quotes are doubled, and whatever holds a comma, a quote or a line's end stands in quotes.
  const quoted = (text) => (/[",\r\n]/.test(text) || text !== text.trim() ? `"${text.replaceAll('"', '""')}"` : text);
  // A spreadsheet runs a cell that begins so; an apostrophe makes it a text, and is taken off again by every reader.
  const harmless = (text) => (/^'*[=+\-@]/.test(text) ? "'" + text : text);
  const asMeant = (text) => (/^'+[=+\-@]/.test(text) ? text.slice(1) : text);
  const csv = () => {
    const rows = Object.entries(chosen()).map(([key, mark]) => [...JSON.parse(key), isBlind() ? "" : mark.old, mark.new, mark.note, state.annotator]);
    return [COLUMNS, ...rows.map((row) => row.map(harmless))].map((row) => row.map(quoted).join(",") + "\r\n").join("");
  };
  const cells = (text) => {
    const rows = [];
    let row = [], cell = "", inside = false;
    for (let k = 0; k < text.length; k += 1) {
      const c = text[k];
      if (inside) {
        if (c !== '"') cell += c;
        else if (text[k + 1] === '"') { cell += '"'; k += 1; }
        else inside = false;
      } else if (c === '"' && cell === "") inside = true;
      else if (c === "," || c === "\n") {
        row.push(cell.replace(/\r$/, ""));
        cell = "";
        if (c === "\n") { rows.push(row); row = []; }
      } else cell += c;
    }
    if (cell || row.length) rows.push([...row, cell]);
    return rows.filter((one) => one.length > 1 || one[0]);
  };
  const take = (text) => {
    const [header, ...rows] = cells(text.replace(/^\ufeff/, ""));
    const at = Object.fromEntries(COLUMNS.map((name) => [name, (header || []).indexOf(name)]));
    const missing = COLUMNS.slice(0, 5).filter((name) => at[name] < 0);
    if (missing.length) return `This file is no list of marks: its first line lacks ${missing.join(", ")}.`;
    const rowOf = ([clip, one]) => [id(clip, one.name), one];
    const pairs = page.data.clips.flatMap((clip) => clip.rows.filter((one) => one.name !== "event" || !isBlind()).map((one) => [clip, one]));
    const known = new Map(pairs.map(rowOf)), left = new Map();
    let taken = 0;
    for (const row of rows) {
      const cell = (name) => asMeant((row[at[name]] || "").trim());
      const key = JSON.stringify([cell("event"), cell("video"), cell("field")]), one = known.get(key);
      const value = one && termOf(one.name, cell("new"));
      const why = !one ? "its clip or field is not on this page" : refusal(one, cell("old"), value);
      if (why) { left.set(why, (left.get(why) || 0) + 1); continue; }
      chosen()[key] = { old: isBlind() ? "" : truthOf(one), new: value, note: cell("note") };
      taken += 1;
    }
    const number = (n) => `${n} row${n === 1 ? "" : "s"}`;
    return [`${number(taken)} taken from the file.`, ...[...left].map(([why, n]) => `${number(n)} left out: ${why}.`)].join(" ");
  };
  // What `prepare --corrections` would refuse is not taken: a term is the same whatever its case, blanks and lines.
  const truthOf = (one) => (one.old !== undefined ? one.old : one.mark === "out" ? "" : one.truth);
  const plain = (field, text) => {
    const kind = page.data.fields[field].kind;
    if (kind === "text") return text.replace(/\s+/g, " ");
    return kind === "count" && /^\d+$/.test(text) ? String(BigInt(text)) : text.replace(/[\s_-]+/g, "_").toLowerCase();
  };
  const termOf = (field, text) => page.data.fields[field].terms.find((term) => plain(field, term) === plain(field, text)) || text;
  const refusal = (one, old, value) => {
    const isOld = plain(one.name, old || "Unknown") === plain(one.name, truthOf(one) || "Unknown");
    return !isBlind() && !isOld ? "old is not the truth of this page" : problem(one.name, value);
  };
  const problem = (field, value) => {
    const what = page.data.fields[field];
    if (!value) return "there is no new value";
    if (value === "Unknown" && field !== "event") return "";
    if (what.kind === "count") return /^\d+$/.test(value) && Number(value) <= what.largest ? "" : `this field is a number up to ${what.largest}, or Unknown`;
    return what.closed && !what.terms.includes(value) ? "new is no term of its field" : "";
  };

  if (panel) {
    restore();
    byId("annotator").value = state.annotator;
    byId("annotator").addEventListener("input", () => { state.annotator = byId("annotator").value; keep(); tell(); });
    byId("blind").addEventListener("input", () => { forget(); tell(); listen(); });
    byId("download").addEventListener("click", () => {
      const link = page.el("a");
      link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
      link.download = kind() + ".csv";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      saved = true;
    });
    byId("clear").addEventListener("click", () => {
      if (!confirm(`Remove ${byId("marked").value}?`)) return;
      state[kind()] = {};
      changed();
      listen();
    });
    byId("load").addEventListener("change", async () => {
      const [file] = byId("load").files;
      if (!file) return;
      const text = take(await file.text());
      changed(text);
      byId("load").value = "";
      listen();
    });
    addEventListener("beforeunload", (event) => { if (!saved && !keeps) event.preventDefault(); });
    keep();
    tell();
  }
  return { get, has, set, remove, isBlind, problem, truthOf, hide, forget: () => panel && forget(), isThere: Boolean(panel), onChange: (call) => { listen = call; } };
})();
