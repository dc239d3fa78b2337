// No less-than or ampersand in this file: the page is well-formed XML too.
(function () {
  "use strict";
  var root = document.documentElement, tip = document.getElementById("tip");

  // Light and dark by hand, over what the system asks for.
  var button = document.getElementById("theme");
  button.hidden = false;
  button.addEventListener("click", function () {
    var dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // Paper is white.
  var chosen;
  addEventListener("beforeprint", function () { chosen = root.dataset.theme; root.dataset.theme = "light"; });
  addEventListener("afterprint", function () {
    if (chosen) { root.dataset.theme = chosen; } else { delete root.dataset.theme; }
  });

  // A legend entry brings its curve forward.
  document.querySelectorAll(".legend li[data-s]").forEach(function (li) {
    var groups = Array.from(li.closest("figure").querySelectorAll("g.s"));
    function focus(on) {
      groups.forEach(function (g) { g.classList.toggle("faded", on ? g.dataset.n !== li.dataset.s : false); });
    }
    li.addEventListener("pointerenter", function () { focus(true); });
    li.addEventListener("pointerleave", function () { focus(false); });
  });

  // A reading line: the values of all curves at the pointer.
  function axis(text) {
    var p = text.split(" ");
    return { lo: +p[0], hi: +p[1], from: +p[2], to: +p[3], unit: p[4] || "" };
  }
  function value(a, px) { return a.lo + (px - a.from) / (a.to - a.from) * (a.hi - a.lo); }
  function show(a, v, digits) {
    if (a.unit === "%") { return (v * 100).toFixed(digits) + "\u00a0%"; }
    var eps = Math.abs(a.hi - a.lo) / 1e4;
    if (eps > Math.abs(v)) { return "0"; }
    return String(+v.toPrecision(digits + 2)).replace("-", "−");
  }
  document.querySelectorAll("svg.chart").forEach(function (svg) {
    var x = axis(svg.dataset.x), y = axis(svg.dataset.y), cross = svg.querySelector(".cross");
    var curves = Array.from(svg.querySelectorAll("g.s")).map(function (g) {
      var pts = [];
      g.querySelectorAll("polyline.v").forEach(function (l) {
        l.getAttribute("points").split(" ").forEach(function (p) { pts.push(p.split(",").map(Number)); });
      });
      return { name: g.dataset.n, color: getComputedStyle(g).getPropertyValue("--c"), cls: g.getAttribute("class"), pts: pts };
    });
    function hide() { tip.hidden = true; cross.style.visibility = "hidden"; }
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("pointermove", function (e) {
      var m = svg.getScreenCTM();
      if (!m) { return; }
      var at = (e.clientX - m.e) / m.a, best = null;
      curves.forEach(function (c) {
        c.pts.forEach(function (p) {
          if (best === null || Math.abs(best - at) > Math.abs(p[0] - at)) { best = p[0]; }
        });
      });
      if (best === null) { return; }
      tip.textContent = "";
      var head = document.createElement("b");
      head.textContent = (x.unit ? "" : svg.dataset.xl + " ") + show(x, value(x, best), x.unit ? 0 : 3);
      tip.appendChild(head);
      var rows = [];
      curves.forEach(function (c) {
        var near = null;
        c.pts.forEach(function (p) {
          if (near === null || Math.abs(near[0] - best) > Math.abs(p[0] - best)) { near = p; }
        });
        if (near === null || Math.abs(near[0] - best) > 6) { return; }
        rows.push({ c: c, px: near[1] });
      });
      rows.sort(function (a, b) { return a.px - b.px; });
      rows.forEach(function (r) {
        var row = document.createElement("div");
        row.className = r.c.cls.replace("faded", "");
        var dot = document.createElement("i");
        row.appendChild(dot);
        row.appendChild(document.createTextNode((r.c.name ? r.c.name + " " : "") + show(y, value(y, r.px), 1)));
        tip.appendChild(row);
      });
      cross.setAttribute("x1", best);
      cross.setAttribute("x2", best);
      cross.style.visibility = "visible";
      tip.hidden = false;
      var w = tip.offsetWidth, left = e.clientX + 16;
      if (left + w > innerWidth - 8) { left = e.clientX - w - 16; }
      tip.style.left = Math.max(8, left) + "px";
      tip.style.top = Math.max(8, Math.min(e.clientY + 12, innerHeight - tip.offsetHeight - 8)) + "px";
    });
  });
})();
