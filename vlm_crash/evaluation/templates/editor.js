// Saying what is right: opened below a row, or in the row itself where the answers are hidden.
const editor = (() => {
  const { el, button, byId, data } = page;
  let saved = () => {}; // called with the field once a mark is set or removed

  const input = (field, value) => {
    const what = data.fields[field], box = el(what.kind === "text" ? "textarea" : what.closed ? "select" : "input", "value");
    if (what.closed) {
      const options = ["", ...what.terms];
      if (value && !options.includes(value)) options.splice(1, 0, value);
      for (const term of options) { const option = el("option", "", term || "choose"); option.value = term; box.append(option); }
    } else if (what.kind === "categorical") {
      const names = el("datalist", "");
      names.id = "terms-" + field;
      for (const term of what.terms) { const option = el("option"); option.value = term; names.append(option); }
      if (!byId(names.id)) document.body.append(names);
      box.setAttribute("list", names.id);
      box.placeholder = "a term";
    } else if (what.kind === "count") { box.inputMode = "numeric"; box.placeholder = "a number, or Unknown"; }
    box.value = value || "";
    return box;
  };
  const editor = {
    opener(clip, one, tr) {
      const mark = marks.get(clip, one.name), press = button(mark ? "marked" : "mark", mark ? "marker on" : "marker");
      press.setAttribute("aria-expanded", "false");
      press.setAttribute("aria-label", `${mark ? "Change the mark of" : "Mark"} ${one.label}`);
      press.addEventListener("click", () => {
        const next = tr.nextElementSibling;
        if (next && next.className === "editor") this.close(tr, press);
        else this.open(clip, one, tr, press);
      });
      return press;
    },
    close(tr, press) { tr.nextElementSibling.remove(); press.setAttribute("aria-expanded", "false"); press.focus(); },
    open(clip, one, tr, press) {
      const mark = marks.get(clip, one.name), form = el("form", "saying"), old = marks.truthOf(one);
      const choices = el("fieldset", "choices"), other = input(one.name, "");
      choices.append(el("legend", "", `What is right for ${one.label}?`));
      const choose = (value, ...content) => {
        const radio = el("input");
        radio.type = "radio"; radio.name = "right"; radio.value = value;
        choices.append(el("label", "", radio, el("span", "", ...content)));
        return radio;
      };
      const truth = old ? choose("truth", "the truth: ", el("b", "", old)) : null;
      const answer = one.term && one.term !== old ? choose("answer", "the answer: ", el("b", "", one.term)) : null;
      const another = choose("other", "another: ");
      choices.lastChild.append(other);
      other.setAttribute("aria-label", "another value");
      other.addEventListener("input", () => { another.checked = true; });
      const note = el("input", "note");
      note.placeholder = "note (may be empty)"; note.setAttribute("aria-label", "note");
      const known = mark ? (truth && mark.new === old ? truth : answer && mark.new === one.term ? answer : another) : answer || truth || another;
      known.checked = true;
      if (mark) { note.value = mark.note || ""; if (known === another) other.value = mark.new; }
      const problem = el("p", "why");
      problem.setAttribute("role", "alert");
      const save = el("button", "", "Save"), cancel = button("Cancel", "plain", () => this.close(tr, press));
      const actions = el("p", "actions", save, cancel);
      if (mark) actions.append(button("Remove the mark", "plain", () => { marks.remove(clip, one.name); saved(one.name); }));
      form.append(choices, note, actions, problem);
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        const value = another.checked ? other.value.trim() : truth && truth.checked ? old : one.term;
        const wrong = another.checked ? this.problem(one.name, value) : "";
        if (wrong) { problem.textContent = wrong; other.focus(); return; }
        marks.set(clip, one.name, old, value, note.value.trim());
        saved(one.name);
      });
      form.addEventListener("keydown", (key) => { if (key.key === "Escape") { key.stopPropagation(); this.close(tr, press); } });
      const cell = el("td", "", form), row = el("tr", "editor");
      cell.colSpan = 4;
      row.append(cell);
      tr.after(row);
      press.setAttribute("aria-expanded", "true");
      known.focus();
      row.scrollIntoView({ block: "nearest" });
    },
    problem(field, value) {
      if (!value) return "Choose or write a value.";
      const why = marks.problem(field, value);
      return why && why[0].toUpperCase() + why.slice(1) + ".";
    },
  };
  const blindRow = (clip, one) => {
    const tr = el("tr"), head = el("th", "", one.label), mark = marks.get(clip, one.name), box = input(one.name, mark ? mark.new : "");
    head.scope = "row";
    box.setAttribute("aria-label", one.label);
    const problem = el("small", "why");
    box.addEventListener("change", () => {
      const value = box.value.trim();
      if (!value) { marks.remove(clip, one.name); problem.textContent = ""; return; }
      problem.textContent = editor.problem(one.name, value);
      if (!problem.textContent) marks.set(clip, one.name, "", value, ""); // old would tell the next labeller the truth
    });
    tr.append(head, el("td", "", box, problem));
    return tr;
  };
  return Object.assign(editor, { blindRow, onSave: (call) => { saved = call; } });
})();
