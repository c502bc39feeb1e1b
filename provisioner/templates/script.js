// Optional interaction. Without this script, everything works through links and the form's button.
"use strict";
(() => {
  const MINUTE = 60000, SOON = 3000;
  const notice = document.getElementById("told");

  // Shows the numbers of the part under the pointer, taken from the table below the chart.
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

  // Replaces a part of the page, and keeps open and scrolled elements in that state.
  const replace = (id, page) => {
    const old = document.getElementById(id), fresh = page.getElementById(id);
    if (!old || !fresh) return;
    for (const details of old.querySelectorAll("details[open]")) {
      const same = fresh.querySelector("#" + details.id);
      if (same) same.open = true;
    }
    const scrolled = old.querySelector(".scroll")?.scrollTop;
    // Text that is being typed stays.
    const typed = old.querySelector("#find:focus"), field = fresh.querySelector("#find");
    const caret = typed?.selectionStart;
    if (typed && field) field.value = typed.value;
    old.replaceWith(document.adoptNode(fresh));
    if (typed && field) {
      field.focus({ preventScroll: true });
      field.setSelectionRange(caret, caret);
    }
    if (scrolled) fresh.querySelector(".scroll")?.scrollTo(0, scrolled);
  };
  const refocus = (id, event) => {
    const links = event === undefined ? [] : [...document.querySelectorAll("[data-event]")];
    const target = links.find((link) => link.dataset.event === event) || (id && document.getElementById(id));
    if (target && target !== document.activeElement) target.focus({ preventScroll: true });
  };

  // Shows another view, or refreshes the current one, without leaving the page.
  let timer = 0, latest = 0, pause = SOON, retry = 0;
  const show = async (url, isRefresh) => {
    const turn = ++latest;
    clearTimeout(timer);
    const main = document.getElementById("data");
    main.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(url, { headers: isRefresh ? { "x-dashboard-refresh": "1" } : {} });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (turn !== latest) return;
      // An overloaded server names the seconds after which to ask again.
      retry = Number(answer.headers.get("retry-after")) * 1000;
      if (!page.getElementById("data")) throw new Error(answer.statusText || "no answer");
      if (isRefresh && !answer.ok) throw new Error(page.querySelector(".problem p")?.textContent || answer.statusText);
      const { id, dataset } = document.activeElement || {};
      if (!isRefresh) replace("choose", page);
      replace("data", page);
      document.title = page.title;
      refocus(id, dataset?.event);
      watch();
      notice.textContent = "";
      // Announces the new view to screen readers.
      const texts = isRefresh ? [] : [...document.querySelectorAll(".problem p, #chart-title")].map((text) => text.textContent);
      const total = document.getElementById("total");
      if (!isRefresh && total) texts.push(total.textContent + " events in all");
      document.getElementById("said").textContent = texts.join(", ");
    } catch (error) {
      if (turn !== latest) return;
      main.removeAttribute("aria-busy");
      notice.textContent = "Failed to read the counts: " + error.message;
    }
    plan();
  };
  const go = (url) => {
    if (new URL(url, location.href).href !== location.href) history.pushState(null, "", url);
    pause = SOON;
    return show(url, false);
  };
  const plan = () => {
    clearTimeout(timer);
    if (document.hidden) return;
    const stale = document.querySelector("footer")?.textContent.includes("newer numbers are being read");
    pause = stale ? Math.min(pause * 2, MINUTE) : SOON;
    if (retry) timer = setTimeout(() => show(location.href, false), retry);
    else if (stale) timer = setTimeout(() => show(location.href, true), pause);
    else if (document.getElementById("refresh").checked) timer = setTimeout(() => show(location.href, true), MINUTE);
  };
  plan();
  document.addEventListener("visibilitychange", plan);
  window.addEventListener("popstate", () => show(location.href, false));

  // A selected option applies immediately; typed text and dates apply on Enter or when the field loses focus.
  const submit = (form) => {
    const data = new FormData(form), query = new URLSearchParams();
    for (const [name, value] of data) {
      if (value !== "" && !(name === "chart" && value === "lines")) query.append(name, value);
    }
    go("?" + query);
  };
  document.addEventListener("submit", (event) => {
    if (event.target.id !== "choose") return;
    event.preventDefault();
    submit(event.target);
  });
  document.addEventListener("change", (event) => {
    const { form, name, type } = event.target;
    if (form?.id !== "choose" || name === "find") return;
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
  // The table of events follows the text that is being typed.
  let typing = 0;
  document.addEventListener("input", (event) => {
    if (event.target.id !== "find") return;
    clearTimeout(typing);
    typing = setTimeout(() => submit(event.target.form), 250);
  });
  document.addEventListener("focusout", (event) => {
    const { form, type, value, defaultValue } = event.target;
    if (form?.id === "choose" && type === "date" && value !== defaultValue) submit(form);
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest('#data a[href^="?"]');
    if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(link.getAttribute("href"));
  });
})();
