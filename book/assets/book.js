// What scrolls sideways can be reached by keyboard, and only that.
function markScrollable() {
  for (const box of document.querySelectorAll(
    "pre, figure.plot, div.math mjx-container, .pst-scrollable-table-container",
  )) {
    const scrolls = box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX !== "visible";
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

// The side bars are landmarks, which the theme leaves to their parts.
addEventListener("DOMContentLoaded", () => {
  const landmark = (selector, label) => {
    const bar = document.querySelector(selector);
    bar?.setAttribute("role", "navigation");
    bar?.setAttribute("aria-label", label);
  };
  landmark(".bd-sidebar-primary", "Book");
  landmark(".bd-sidebar-secondary", "Page");
});

addEventListener("load", () => {
  markScrollable();
  window.MathJax?.startup?.promise?.then(markScrollable);
});
addEventListener("resize", markScrollable);
addEventListener("toggle", markScrollable, true);
