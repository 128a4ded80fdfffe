"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const columns = data.columns;
  const PAGE = 100;
  const SIGN = { none: "\u2195", ascending: "\u2191", descending: "\u2193" };
  const byId = (id) => document.getElementById(id);
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children); // strings become text, never markup
    return element;
  };
  const collator = new Intl.Collator("en", { numeric: true });
  const write = (value, column) => {
    if (value === null) return "\u2013";
    if (column.kind !== "number") return value;
    const shown = column.digits === null ? String(value) : value.toFixed(column.digits);
    return shown.replace("-", "\u2212");
  };

  const rows = data.rows.map((values, place) => ({ values, place }));
  let sorted = { column: columns.findIndex((one) => one.label === "Score"), falling: false };
  let limit = PAGE;
  const tests = new Map(); // column -> what its filter asks of a value

  // Filters -----------------------------------------------------------------------------------

  const form = byId("filters");
  const words = { name: "Text in the image's path" };

  const ask = (column, test) => {
    if (test) tests.set(column, test);
    else tests.delete(column);
    limit = PAGE;
    show();
  };

  const addSearch = (column, label) => {
    const input = make("input", { type: "search", id: `f${column}`, autocomplete: "off" });
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLowerCase();
      ask(column, wanted && ((value) => value !== null && value.toLowerCase().includes(wanted)));
    });
    return make("div", { class: "filter" }, make("label", { for: input.id }, label), input);
  };

  const addChoice = (column, label) => {
    const counts = new Map();
    for (const row of rows) {
      const value = row.values[column];
      counts.set(value, (counts.get(value) || 0) + 1);
    }
    if (counts.size < 2) return null;
    const values = [...counts.keys()].sort((a, b) =>
      a === null ? 1 : b === null ? -1 : collator.compare(a, b));
    const select = make("select", { id: `f${column}` }, make("option", { value: "" }, "any"));
    values.forEach((value, i) => {
      const shown = `${value === null ? "(none)" : value} (${counts.get(value)})`;
      select.append(make("option", { value: String(i) }, shown));
    });
    select.addEventListener("change", () => {
      const wanted = values[Number(select.value)];
      ask(column, select.value !== "" && ((value) => value === wanted));
    });
    return make("div", { class: "filter" }, make("label", { for: select.id }, label), select);
  };

  const addRange = (column, label) => {
    const numbers = rows.map((row) => row.values[column]).filter((value) => value !== null);
    if (!numbers.length) return null;
    const low = Math.min(...numbers), high = Math.max(...numbers);
    if (low === high) return null;
    const ends = [["from", low], ["to", high]].map(([word, end]) => make("input", {
      type: "number", step: "any", id: `f${column}-${word}`, placeholder: write(end, columns[column]),
      "aria-label": `${label} ${word}`,
    }));
    const read = () => {
      const [least, most] = ends.map((input) => (input.value === "" ? null : Number(input.value)));
      ask(column, (least !== null || most !== null) && ((value) => value !== null
        && (least === null || value >= least) && (most === null || value <= most)));
    };
    ends.forEach((input) => input.addEventListener("input", read));
    return make("fieldset", { class: "filter" }, make("legend", {}, label), ends[0],
      make("span", { "aria-hidden": "true" }, "\u2013"), ends[1]);
  };

  columns.forEach((column, i) => {
    const label = words[column.kind] || column.label;
    const add = { search: addSearch, choice: addChoice, range: addRange }[column.filter];
    const made = add && add(i, label);
    if (made) form.append(made);
  });
  form.append(make("button", { type: "reset" }, "Clear"));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    tests.clear();
    limit = PAGE;
    show();
  });
  byId("clear").addEventListener("click", () => {
    form.reset();
    form.querySelector("input").focus();
  });

  // Headings ----------------------------------------------------------------------------------

  const head = make("tr", {}, make("th", { scope: "col", class: "picture-cell" }, "Picture"));
  const headings = columns.map((column, i) => {
    const sign = make("span", { "aria-hidden": "true", class: "sign" }, SIGN.none);
    const button = make("button", { type: "button", title: column.hint }, column.label, " ", sign);
    const heading = make("th", { scope: "col", "aria-sort": "none", class: column.kind }, button);
    button.addEventListener("click", () => {
      sorted = { column: i, falling: sorted.column === i && !sorted.falling };
      limit = PAGE;
      show();
    });
    head.append(heading);
    return { heading, sign };
  });
  document.querySelector("#rows thead").append(head);

  // Rows --------------------------------------------------------------------------------------

  const picture = (row) => {
    const from = data.pictures[row.place];
    if (from === null) return make("span", { class: "no-picture" }, "no preview");
    const there = from.startsWith("#"); // another section has it already
    const source = there ? document.querySelector(`img[data-row="${from.slice(1)}"]`).src : from;
    return make("img", { src: source, alt: "", loading: "lazy" });
  };

  const line = (row) => {
    const made = make("tr", { "data-row": row.place }, make("td", { class: "picture-cell" },
      picture(row)));
    columns.forEach((column, i) => {
      const shown = write(row.values[i], column);
      if (column.kind === "name") {
        const cell = make("th", { scope: "row", class: "name" }, make("bdi", {}, shown));
        const error = data.errors[row.place];
        if (error) cell.append(make("span", { class: "error" }, error));
        made.append(cell);
      } else {
        made.append(make("td", { class: column.kind }, shown));
      }
    });
    return made;
  };

  const compare = (a, b) => {
    const [first, second] = [a.values[sorted.column], b.values[sorted.column]];
    if (first === null || second === null) { // rows without a value are last, whatever the order
      return (first === null) - (second === null) || a.place - b.place;
    }
    const order = columns[sorted.column].kind === "number" ? first - second
      : collator.compare(first, second);
    return (sorted.falling ? -order : order) || a.place - b.place;
  };

  function show() {
    const found = rows.filter((row) =>
      [...tests].every(([column, test]) => test(row.values[column]))).sort(compare);
    const some = found.slice(0, limit);
    document.querySelector("#rows tbody").replaceChildren(...some.map(line));
    const total = rows.length.toLocaleString("en");
    byId("count").textContent = some.length === found.length
      ? `${found.length.toLocaleString("en")} of ${total} rows shown`
      : `${found.length.toLocaleString("en")} of ${total} rows match, the first ${some.length} shown`;
    byId("nothing").hidden = found.length > 0;
    const left = Math.min(PAGE, found.length - some.length);
    byId("more").hidden = left === 0;
    byId("more").textContent = `Show ${left} more`;
    headings.forEach(({ heading, sign }, i) => {
      const state = i !== sorted.column ? "none" : sorted.falling ? "descending" : "ascending";
      heading.setAttribute("aria-sort", state);
      sign.textContent = SIGN[state];
    });
  }

  byId("more").addEventListener("click", () => {
    const before = limit;
    limit += PAGE;
    show();
    const first = document.querySelectorAll("#rows tbody tr")[before];
    if (first) {
      first.tabIndex = -1;
      first.focus();
    }
  });

  show();
  document.querySelector(".without-script").hidden = true;
  byId("browse-tool").hidden = false;
})();
