// Tables that sort by a click or Enter on a heading, and the choice of a field's plots.
(() => {
  const value = (cell) => (cell.dataset.v === undefined ? cell.textContent.trim() : cell.dataset.v);
  const compare = (a, b, isNumber, way) => {
    if (a === "" || b === "") return (a === "") - (b === ""); // what has no value comes last, whichever way
    return way * (isNumber ? a - b : a.localeCompare(b));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0], given = [...body.rows], heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const press = head.querySelector("button");
      if (!press) return;
      press.addEventListener("click", () => {
        const isNumber = head.dataset.kind === "number", before = head.getAttribute("aria-sort");
        // Numbers: largest first, then smallest; texts the other way; then as they were given.
        const [first, second] = isNumber ? ["descending", "ascending"] : ["ascending", "descending"];
        const now = before === "none" ? first : before === first ? second : "none";
        for (const other of heads) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", now);
        const way = now === "ascending" ? 1 : -1;
        const rows = [...given];
        if (now !== "none") rows.sort((a, b) => compare(value(a.cells[column]), value(b.cells[column]), isNumber, way));
        body.append(...rows);
      });
    });
  }

  const choice = page.byId("plot");
  if (choice) {
    const figures = [...document.querySelectorAll("[data-plot]")];
    const choose = () => { for (const figure of figures) figure.hidden = figure.dataset.plot !== choice.value; };
    choice.addEventListener("input", choose);
    choose();
  }
})();
