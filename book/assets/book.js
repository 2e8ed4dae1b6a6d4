// What scrolls sideways can be reached by keyboard, and only that.
function markScrollable() {
  for (const box of document.querySelectorAll("pre, figure.plot, mjx-container[display], .table-scroll, .math")) {
    const scrolls = box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "visible";
    if (scrolls) {
      box.tabIndex = 0;
    } else if (box.tabIndex === 0) {
      box.removeAttribute("tabindex");
    }
  }
}

// Search summaries are fetched, which no browser allows on a page opened from disk.
if (location.protocol === "file:") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

addEventListener("load", () => {
  markScrollable();
  window.MathJax?.startup?.promise?.then(markScrollable);
});
addEventListener("resize", markScrollable);
addEventListener("toggle", markScrollable, true);
