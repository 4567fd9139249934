"""How a report looks: light and dark, on a wide screen, on a phone and on paper."""

from __future__ import annotations

from typing import Final

PICTURE: Final = """
svg { font-family: system-ui, sans-serif; }
text { fill: #1c1e21; font-size: 13px; }
.tick, .unit, .soft { fill: #565e68; font-size: 12px; }
.halo { fill: #fff; stroke: #fff; stroke-width: 3px; stroke-linejoin: round; stroke-opacity: .85; }
.halo.advised, .name.advised { font-weight: 700; font-size: 14px; }
.name.advised { fill: #0a6b4a; }
.name.dominated { fill: #5c646e; }
.grid { stroke: #1c1e21; stroke-opacity: .09; }
.axis, .lead, .bar, .edge { fill: none; stroke: #565e68; }
.lead { stroke-opacity: .5; }
.edge { stroke: #2354c7; stroke-width: 1.5; stroke-dasharray: 2 4; stroke-linecap: round; }
.bar { stroke-width: 1.2; }
.point.advised { fill: #0a7d55; stroke: #fff; stroke-width: 1.5; }
.point.front { fill: #2354c7; stroke: #fff; stroke-width: 1.5; }
.point.dominated { fill: #fff; stroke: #68707a; stroke-width: 2; }
.band.b0 { fill: #0a7d55; fill-opacity: .09; }
.band.b1 { fill: #2354c7; fill-opacity: .03; }
.band.b2 { fill: #b26a00; fill-opacity: .06; }
.band.b3 { fill: #b3261e; fill-opacity: .09; }
.back { fill: #fff; }
.head { font-size: 20px; font-weight: 700; }
.said { font-size: 15px; }
.caption { font-size: 15px; font-weight: 700; }
@media screen and (prefers-color-scheme: dark) {
text { fill: #e8e9eb; }
.tick, .unit, .soft { fill: #a9b0ba; }
.halo { fill: #16181c; stroke: #16181c; }
.name.advised { fill: #66dcae; }
.name.dominated { fill: #a9b0ba; }
.grid { stroke: #fff; stroke-opacity: .1; }
.axis, .lead, .bar { stroke: #a9b0ba; }
.edge { stroke: #8ab0ff; }
.point.advised { fill: #66dcae; stroke: #16181c; }
.point.front { fill: #8ab0ff; stroke: #16181c; }
.point.dominated { fill: #16181c; stroke: #a9b0ba; }
.band.b0 { fill: #66dcae; fill-opacity: .1; }
.band.b1 { fill: #8ab0ff; fill-opacity: .05; }
.band.b2 { fill: #f0b060; fill-opacity: .08; }
.band.b3 { fill: #ff8a80; fill-opacity: .12; }
.back { fill: #16181c; }
}
"""
"""Of the pictures. Colours are written out, because not all that shows SVG knows variables."""

PAGE: Final = """
:root { color-scheme: light dark; --text: #1c1e21; --back: #fff; --soft: #565e68; --box: #f4f5f7;
 --line: #d8dbe0; --good: #0a6b4a; --goodbox: #e8f5ef; --link: #2354c7; }
@media screen and (prefers-color-scheme: dark) { :root { --text: #e8e9eb; --back: #16181c; --soft: #a9b0ba;
 --box: #22252b; --line: #3a3f47; --good: #66dcae; --goodbox: #16291f; --link: #8ab0ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 1rem/1.6 system-ui, sans-serif;
 overflow-wrap: break-word; }
main { max-width: 74rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.15rem; font-weight: 600; color: var(--soft); margin: 0 0 .75rem; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 2.6rem 0 .6rem; }
p, ul, dl { max-width: 44rem; margin: .6rem 0; }
.advice { max-width: none; margin: 0; padding: 1.1rem 1.3rem; border-left: 6px solid var(--good);
 border-radius: .3rem; background: var(--goodbox); font-size: clamp(1.15rem, 2.6vw, 1.6rem); line-height: 1.4;
 font-weight: 600; }
.facts { color: var(--soft); font-size: .92rem; }
a { color: var(--link); }
ul { padding-left: 1.2rem; } li { margin: .3rem 0; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
 gap: 1.5rem; margin: 1rem 0; }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: .3rem; }
figure svg { display: block; width: 100%; height: auto; max-width: 42rem; }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; padding: 0; list-style: none; max-width: none; }
.key svg { width: 1.1rem; height: 1.1rem; vertical-align: -.15rem; }
.scroll { overflow-x: auto; margin: 1rem 0; border: 1px solid var(--line); border-radius: .4rem; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .87rem; line-height: 1.35;
 font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .5rem .7rem; color: var(--soft); }
th, td { padding: .45rem .45rem; text-align: right; vertical-align: top; border-top: 1px solid var(--line);
 white-space: nowrap; }
thead th { vertical-align: bottom; background: var(--box); font-weight: 600; }
tbody th, thead th:first-child, .words { text-align: left; }
tbody th { position: sticky; left: 0; background: var(--back); }
thead th:first-child { position: sticky; left: 0; }
.words { white-space: normal; min-width: 10.5rem; }
tr.advised th, tr.advised td { background: var(--goodbox); font-weight: 600; }
td small, th small { color: var(--soft); font-size: .85em; font-weight: 400; }
dt { font-weight: 600; margin-top: .7rem; } dd { margin: 0; }
@media print, (min-width: 48rem) { dl { display: grid; grid-template-columns: 12rem 1fr; gap: .5rem 1.5rem;
 max-width: 56rem; } dt { margin: 0; } }
pre { margin: .8rem 0; padding: .8rem 1rem; background: var(--box); border: 1px solid var(--line);
 border-radius: .4rem; white-space: pre-wrap; overflow-wrap: anywhere; }
code { font-family: ui-monospace, monospace; font-size: .95em; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
@media print {
 main { max-width: none; padding: 0; } body { font-size: 10pt; }
 .scroll { overflow: visible; border: 0; } table { font-size: 7pt; } th, td { padding: .2rem .25rem; }
 tbody th, thead th:first-child { position: static; } .words { min-width: 8.5em; }
 dl { gap: .2rem 1rem; grid-template-columns: 9rem 1fr; }
 .pictures { grid-template-columns: 1fr 1fr; gap: .5rem; }
 figure, tr, pre, .advice { break-inside: avoid; } h2 { break-after: avoid; }
}
"""
"""Of the page around them."""
