"use strict";
// Texts of clips and answers reach the page only through textContent; nothing is built from strings of HTML.
const page = (() => {
  const el = (tag, cls, ...content) => {
    const node = document.createElement(tag);
    if (cls) node.className = cls;
    node.append(...content.filter((one) => one !== undefined && one !== null && one !== ""));
    return node;
  };
  const button = (text, cls, click) => {
    const node = el("button", cls, text);
    node.type = "button";
    if (click) node.addEventListener("click", click);
    return node;
  };
  const byId = (id) => document.getElementById(id);
  // What a clip shows once it is opened is parsed then, not before; null while the document is still being read.
  const read = (id) => (byId(id) ? JSON.parse(byId(id).textContent) : null);
  for (const form of document.forms) if (form.method !== "dialog") form.addEventListener("submit", (event) => event.preventDefault());
  return { el, button, byId, read, data: read("data") };
})();
