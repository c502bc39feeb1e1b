// What makes the dashboard handier. Without it everything works by links and the form's button.
"use strict";
(() => {
  const MINUTE = 60000, SOON = 3000;
  const form = document.getElementById("choose");
  const told = document.getElementById("told");

  // The numbers of the part under the pointer, from the table below the chart.
  const watch = () => {
    const figure = document.querySelector("figure");
    if (!figure) return;
    const tip = figure.querySelector(".tip");
    const names = [...document.querySelectorAll(".numbers thead th")].slice(1).map((cell) => cell.textContent);
    const rows = document.querySelector(".numbers tbody").rows;
    const show = (event) => {
      const plot = event.target.closest(".plot");
      if (!plot || rows.length === 0) return hide();
      const box = plot.getBoundingClientRect();
      const left = plot.dataset.left / 1000, right = plot.dataset.right / 1000;
      const share = ((event.clientX - box.left) / box.width - left) / (right - left || 1);
      const part = Math.min(rows.length - 1, Math.max(0, Math.round(share * (rows.length - 1))));
      const title = document.createElement("b");
      title.textContent = rows[part].cells[0].textContent;
      const lines = names.map((name, n) => {
        const line = document.createElement("span");
        line.textContent = rows[part].cells[n + 1].textContent + "  " + name;
        return line;
      });
      tip.replaceChildren(title, ...lines);
      tip.hidden = false;
      const x = event.clientX - box.left;
      tip.style.left = Math.max(0, Math.min(x + 16, box.width - tip.offsetWidth)) + "px";
      tip.style.top = Math.max(0, event.clientY - box.top - tip.offsetHeight - 12) + "px";
    };
    const hide = () => { tip.hidden = true; };
    figure.addEventListener("pointermove", show);
    figure.addEventListener("pointerdown", show);
    figure.addEventListener("pointerleave", hide);
  };

  watch();
  if (!form) return;

  // A choice shows at once; typing does when it is done.
  document.documentElement.classList.add("handy");
  form.addEventListener("change", (event) => {
    if (event.target.name === "last" && event.target.value) {
      form.elements.from.value = "";
      form.elements.to.value = "";
    }
    if (event.target.name === "from" && event.target.value) form.elements.last.value = "";
    form.requestSubmit();
  });
  // An address without what is not chosen is easier to read and to send on.
  form.addEventListener("formdata", (event) => {
    for (const [name, value] of [...event.formData]) {
      if (value === "" && !event.formData.getAll(name).some((other) => other !== "")) event.formData.delete(name);
    }
    const events = event.formData.getAll("event").filter((name) => name !== "");
    event.formData.delete("event");
    for (const name of events) event.formData.append("event", name);
    if (event.formData.get("chart") === "lines") event.formData.delete("chart");
  });

  // The numbers anew, in place: what is open, focused or scrolled stays so.
  const refresh = async () => {
    const old = document.getElementById("data");
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("data");
      if (!answer.ok || !fresh) throw new Error(page.querySelector(".problem p")?.textContent || answer.statusText);
      const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
      for (const details of old.querySelectorAll("details[open]")) {
        const same = fresh.querySelector("#" + details.id);
        if (same) same.open = true;
      }
      const scrolled = old.querySelector(".scroll")?.scrollTop;
      old.replaceWith(document.adoptNode(fresh));
      if (scrolled) fresh.querySelector(".scroll")?.scrollTo(0, scrolled);
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
      watch();
      told.textContent = "";
    } catch (error) {
      told.textContent = "The numbers could not be read again: " + error.message;
    }
    plan();
  };
  let waiting = 0;
  const plan = () => {
    clearTimeout(waiting);
    const stale = document.querySelector("footer")?.textContent.includes("newer numbers are being read");
    if (stale) waiting = setTimeout(refresh, SOON);
    else if (form.elements.refresh.checked) waiting = setTimeout(refresh, MINUTE);
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(waiting);
    else plan();
  });
  plan();
})();
