// Tabs by the pattern of WAI-ARIA: one tab stop, arrows move, Home and End jump.

/** Makes a list of tabs work; calls `onShow` with the id of each tab that is shown, and returns the function for it. */
export function makeTabs(list, onShow = () => {}) {
  const tabs = [...list.querySelectorAll("[role=tab]")];
  const show = (id) => {
    for (const tab of tabs) {
      const isShown = tab.id === id;
      tab.setAttribute("aria-selected", isShown);
      tab.tabIndex = isShown ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !isShown;
    }
    onShow(id);
  };
  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) show(tab.id);
  });
  list.addEventListener("keydown", (event) => {
    const at = tabs.indexOf(event.target);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const tab = tabs.at(to % tabs.length);
    tab.focus();
    show(tab.id);
  });
  return show;
}
