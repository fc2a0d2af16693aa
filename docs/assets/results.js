// Filters and sorts the results' table; without JavaScript the page shows all of it.
(function () {
  const table = document.querySelector("table.la-results");
  if (!table) return;
  const rows = Array.from(table.tBodies[0].rows);
  const form = document.querySelector("form.la-filters");
  const count = document.querySelector(".la-count");
  form.hidden = false;

  // A figure of another page links to its row, which is shown whatever the filters hide.
  let linked = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const chosen = (name) => form.elements[name].value;
  function show() {
    const words = chosen("words").toLowerCase().split(/\s+/).filter(Boolean);
    const notRun = form.elements.notrun.checked;
    let shown = 0;
    for (const row of rows) {
      const match = ["rule", "data", "net", "task", "study"].every((key) => !chosen(key) || row.dataset[key] === chosen(key));
      const run = notRun || row.dataset.run === "yes";
      const text = row.textContent.toLowerCase();
      row.hidden = row !== linked && !(match && run && words.every((word) => text.includes(word)));
      shown += !row.hidden;
    }
    count.textContent = shown + " of " + rows.length + " rows";
    const state = new URLSearchParams();
    for (const field of form.elements) {
      if (field.name && field.type !== "checkbox" && field.value) state.set(field.name, field.value);
      if (field.type === "checkbox" && field.checked) state.set(field.name, "yes");
    }
    if (!linked) history.replaceState(null, "", "#" + state);  // a choice can be linked to
  }

  const state = new URLSearchParams(location.hash.slice(1));
  for (const field of form.elements) {
    if (!field.name || !state.has(field.name)) continue;
    if (field.type === "checkbox") field.checked = true;
    else field.value = state.get(field.name);
  }
  form.addEventListener("input", () => {
    linked = null;
    show();
  });
  form.addEventListener("reset", () => setTimeout(show));
  form.addEventListener("submit", (event) => event.preventDefault());

  Array.from(table.tHead.rows[0].cells).forEach((cell, column) => {
    const button = cell.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const down = cell.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === "");  // what is not there comes last, either way
        const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return down ? -order : order;
      };
      rows.sort(compare).forEach((row) => table.tBodies[0].appendChild(row));
    });
  });
  show();
  if (linked) linked.scrollIntoView({ block: "center" });
})();
