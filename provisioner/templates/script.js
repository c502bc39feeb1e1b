// What makes the dashboard handier. Without it everything works by links and the form's button.
"use strict";
(() => {
  const MINUTE = 60000, SOON = 3000;
  const told = document.getElementById("told");

  // The numbers of the part under the pointer, from the table below the chart.
  const watch = () => {
    const figure = document.querySelector("figure");
    if (!figure) return;
    const tip = figure.querySelector(".tip");
    const names = [...document.querySelectorAll(".numbers thead th")].slice(1).map((cell) => cell.textContent);
    const rows = document.querySelector(".numbers tbody").rows;
    const hide = () => { tip.hidden = true; };
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
    figure.addEventListener("pointermove", show);
    figure.addEventListener("pointerdown", show);
    figure.addEventListener("pointerleave", hide);
  };

  watch();
  if (!document.getElementById("choose")) return;
  document.documentElement.classList.add("handy");

  // A part of the page in place of the old one: what is open, focused or scrolled stays so.
  const replace = (id, page) => {
    const old = document.getElementById(id), fresh = page.getElementById(id);
    if (!old || !fresh) return;
    for (const details of old.querySelectorAll("details[open]")) {
      const same = fresh.querySelector("#" + details.id);
      if (same) same.open = true;
    }
    const scrolled = old.querySelector(".scroll")?.scrollTop;
    old.replaceWith(document.adoptNode(fresh));
    if (scrolled) fresh.querySelector(".scroll")?.scrollTo(0, scrolled);
  };
  const refocus = (id, event) => {
    const links = event === undefined ? [] : [...document.querySelectorAll("[data-event]")];
    const target = links.find((link) => link.dataset.event === event) || (id && document.getElementById(id));
    if (target && target !== document.activeElement) target.focus({ preventScroll: true });
  };

  // Shows another view, or the same one anew, without leaving the page.
  let waiting = 0, shown = 0, soon = SOON;
  const show = async (url, anew) => {
    const turn = ++shown;
    clearTimeout(waiting);
    const main = document.getElementById("data");
    main.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(url, { headers: anew ? { "x-dashboard-anew": "1" } : {} });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (turn !== shown) return;
      if (!page.getElementById("data")) throw new Error(answer.statusText || "no answer");
      if (anew && !answer.ok) throw new Error(page.querySelector(".problem p")?.textContent || answer.statusText);
      const { id, dataset } = document.activeElement || {};
      if (!anew) replace("choose", page);
      replace("data", page);
      document.title = page.title;
      refocus(id, dataset?.event);
      watch();
      told.textContent = "";
      // Those who do not see the page hear that it is another one.
      const texts = anew ? [] : [...document.querySelectorAll(".problem p, #chart-title")].map((text) => text.textContent);
      const total = document.getElementById("total");
      if (!anew && total) texts.push(total.textContent + " events in all");
      document.getElementById("said").textContent = texts.join(", ");
    } catch (error) {
      if (turn !== shown) return;
      main.removeAttribute("aria-busy");
      told.textContent = "The numbers could not be read: " + error.message;
    }
    plan();
  };
  const go = (url) => {
    if (new URL(url, location.href).href !== location.href) history.pushState(null, "", url);
    soon = SOON;
    return show(url, false);
  };
  const plan = () => {
    clearTimeout(waiting);
    if (document.hidden) return;
    const stale = document.querySelector("footer")?.textContent.includes("newer numbers are being read");
    soon = stale ? Math.min(soon * 2, MINUTE) : SOON;
    if (stale) waiting = setTimeout(() => show(location.href, true), soon);
    else if (document.getElementById("refresh").checked) waiting = setTimeout(() => show(location.href, true), MINUTE);
  };
  plan();
  document.addEventListener("visibilitychange", plan);
  window.addEventListener("popstate", () => show(location.href, false));

  // A choice shows at once. What is typed, a date among it, does when it is done: at Enter, or when the field is left.
  const submit = (form) => {
    const data = new FormData(form), query = new URLSearchParams();
    for (const [name, value] of data) {
      if (value !== "" && !(name === "chart" && value === "lines")) query.append(name, value);
    }
    go("/?" + query);
  };
  document.addEventListener("submit", (event) => {
    if (event.target.id !== "choose") return;
    event.preventDefault();
    submit(event.target);
  });
  document.addEventListener("change", (event) => {
    const { form, name, type } = event.target;
    if (form?.id !== "choose") return;
    const last = form.elements.last;
    if (name === "last" && last.value) form.elements.from.value = form.elements.to.value = "";
    if ((name === "from" || name === "to") && event.target.value) last.value = "";
    if (name === "last" && !last.value) {
      document.getElementById("more").open = true;
      form.elements.from.focus();
    } else if (type !== "date") {
      submit(form);
    }
  });
  document.addEventListener("focusout", (event) => {
    const { form, type, value, defaultValue } = event.target;
    if (form?.id === "choose" && type === "date" && value !== defaultValue) submit(form);
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest('#data a[href^="/?"]');
    if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(link.getAttribute("href"));
  });
})();
