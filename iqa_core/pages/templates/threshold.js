"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const holder = byId("threshold-tool");
  if (!holder) return;
  const data = JSON.parse(holder.dataset.quantiles);
  const values = data.values; // ascending
  const range = byId("threshold-range"), value = byId("threshold-value");
  const share = byId("threshold-share");
  const bars = [...document.querySelectorAll("#scores .plot")[0].querySelectorAll("rect")];
  const STEPS = 1000;

  // Share of the scores that are at least a threshold, 0 to 1.
  const kept = (least) => {
    let low = 0, high = values.length; // the first place whose value is at least that
    while (low < high) {
      const middle = (low + high) >> 1;
      if (values[middle] < least) low = middle + 1;
      else high = middle;
    }
    if (data.exact || low === 0 || low === values.length) return 1 - low / values.length;
    const [before, after] = [values[low - 1], values[low]];
    const part = after > before ? (least - before) / (after - before) : 1;
    return 1 - (low - 1 + part) / (values.length - 1);
  };

  // The threshold that keeps a share.
  const atShare = (wanted) => {
    const place = Math.min(values.length - 1, Math.round((1 - wanted) * values.length));
    return values[Math.max(0, place)];
  };

  const percent = (part) => (100 * part).toFixed(1);

  const show = (least, changed) => {
    const part = kept(least);
    const rows = Math.round(part * data.scored);
    if (changed !== range) range.value = String(least);
    if (changed !== value) value.value = least.toFixed(4);
    if (changed !== share) share.value = percent(part);
    const about = data.exact ? "" : "about ";
    byId("threshold-kept").textContent = `keeps ${about}${rows.toLocaleString("en")} of `
      + `${data.scored.toLocaleString("en")} scored rows (${percent(part)} %)`;
    const start = `iqa select --scores ${data.scores}`;
    byId("threshold-command").textContent
      = `${start} --where "score >= ${Number(least.toFixed(4))}" --output selected.parquet`;
    const top = Math.max(0.1, Number(percent(part)));
    byId("share-command").textContent = `${start} --top ${top}% --output selected.parquet`;
    range.setAttribute("aria-valuetext", `${least.toFixed(3)}, keeps ${percent(part)} percent`);
    const edge = (least - data.low) / (data.high - data.low) * 100;
    for (const bar of bars) {
      const right = parseFloat(bar.getAttribute("x")) + parseFloat(bar.getAttribute("width"));
      bar.classList.toggle("below", right <= edge + 1e-9);
    }
  };

  range.min = String(data.low);
  range.max = String(data.high);
  range.step = String((data.high - data.low) / STEPS);
  range.addEventListener("input", () => show(Number(range.value), range));
  value.addEventListener("input", () => {
    if (value.value !== "") show(Number(value.value), value);
  });
  share.addEventListener("input", () => {
    if (share.value !== "") show(atShare(Math.min(100, Math.max(0, Number(share.value))) / 100), share);
  });
  for (const button of document.querySelectorAll("[data-copies]")) {
    button.addEventListener("click", async () => {
      const code = byId(button.dataset.copies);
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch { // a page from a file may not be allowed to: select it, so that Ctrl-C does
        getSelection().selectAllChildren(code);
        button.textContent = "Selected: press Ctrl-C";
      }
    });
  }
  show(atShare(0.5), null);
  holder.hidden = false;
})();
