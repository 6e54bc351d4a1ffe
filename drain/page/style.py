"""The colours and the form of the page, light and dark.

Text has the contrast that WCAG 2.2 asks for at level AA (4.5 to 1), what is drawn that of
graphics (3 to 1). The hues are apart for the colour-blind too (after Okabe and Ito,
https://jfly.uni-koeln.de/color/), and lines differ in their dashes as well.
"""

LIGHT = {
    "ground": "#f6f8fa",
    "card": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#57606a",
    "grid": "#d0d7de",
    "delivered": "#0072b2",
    "quarantined": "#d55e00",
    "discarded": "#8a939d",
    "median": "#0072b2",
    "p95": "#a8508a",
    "backlog": "#00785a",
}
DARK = {
    "ground": "#0d1117",
    "card": "#161b22",
    "ink": "#e6edf3",
    "muted": "#9da7b3",
    "grid": "#3d444d",
    "delivered": "#3d9ad6",
    "quarantined": "#f0953a",
    "discarded": "#c9ced6",
    "median": "#56b4e9",
    "p95": "#e29ac4",
    "backlog": "#2fc99c",
}
# Behind white words.
BADGES = {"ok": "#1a7f37", "warning": "#9a6700", "critical": "#cf222e", "unknown": "#6e40c9"}


def _variables(colours: dict[str, str]) -> str:
    return ":root{" + "".join(f"--{name}:{value};" for name, value in colours.items()) + "}"


_PAINTED = "".join(
    f".{name}{{fill:var(--{name});stroke:none;background:var(--{name})}}"
    for name in ("delivered", "quarantined", "discarded")
) + "".join(
    f".line.{name}{{stroke:var(--{name})}}.dot.{name}{{fill:var(--{name})}}.key.{name}{{border-color:var(--{name})}}"
    for name in ("median", "p95", "backlog")
)
_BADGES = "".join(f".badge.{name}{{background:{value}}}" for name, value in BADGES.items())

CSS = f"""
{_variables(LIGHT)}
@media (prefers-color-scheme:dark){{{_variables(DARK)}}}
@media print{{{_variables(LIGHT)}details::details-content{{content-visibility:visible;block-size:auto}}}}
*{{box-sizing:border-box}}
:root{{color-scheme:light dark}}
body{{margin:0 auto;padding:1rem;max-width:80rem;background:var(--ground);color:var(--ink);
font:1rem/1.45 system-ui,sans-serif;overflow-wrap:anywhere}}
h1{{font-size:1.4rem;margin:0}}
h2{{font-size:1.05rem;margin:0 0 .5rem}}
p,ul,dl,figure{{margin:0}}
ul{{padding-left:1.2rem}}
header{{display:flex;flex-wrap:wrap;gap:.3rem .8rem;align-items:center;margin-bottom:.8rem}}
.badge{{color:#fff;border-radius:1rem;padding:.1rem .8rem;font-weight:600}}
{_BADGES}
.muted,figcaption,footer{{color:var(--muted);font-size:.875rem}}
.card,.tile{{background:var(--card);border:1px solid var(--grid);border-radius:.5rem;padding:.8rem}}
.card{{margin-bottom:.8rem;break-inside:avoid}}
.tiles,.row{{display:grid;gap:.8rem;margin-bottom:.8rem}}
.tiles{{grid-template-columns:repeat(auto-fit,minmax(9rem,1fr))}}
.row{{grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr))}}
.row .card{{margin:0}}
.tile dt{{color:var(--muted);font-size:.875rem}}
.tile dd{{margin:0}}
.figure{{font-size:1.4rem;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;font-weight:600;line-height:1.2;font-variant-numeric:tabular-nums}}
.legend{{display:flex;flex-wrap:wrap;gap:.2rem 1rem;list-style:none;padding:0;font-size:.875rem;min-height:1.4rem}}
.key{{display:inline-block;width:.8rem;height:.8rem;border-radius:2px;margin-right:.35rem;print-color-adjust:exact}}
.line.key,.key.median,.key.p95,.key.backlog{{height:0;width:1.4rem;border-radius:0;border-top:3px solid;vertical-align:.25rem}}
.key.p95{{border-top-style:dashed}}
svg{{display:block;width:100%;height:auto;margin:.3rem 0}}
svg text{{font:12px system-ui,sans-serif;fill:var(--muted)}}
.grid{{stroke:var(--grid);stroke-width:1}}
{_PAINTED}
.line{{fill:none;stroke-width:2;stroke-linejoin:round}}
.line.p95{{stroke-dasharray:5 3}}
.area{{fill:var(--backlog);opacity:.18}}
.scroll{{overflow-x:auto}}
table{{border-collapse:collapse;min-width:min(100%,12rem);font-size:.875rem;font-variant-numeric:tabular-nums}}
th,td{{text-align:left;padding:.25rem 1rem .25rem 0;border-bottom:1px solid var(--grid);vertical-align:top;min-width:4.5rem}}
td:last-child{{min-width:8rem}}
th{{color:var(--muted);font-weight:600}}
td.number,th.number{{text-align:right;white-space:nowrap;min-width:0}}
.days td,.days th{{padding-right:.25rem;min-width:0}}
@media (max-width:30rem){{table{{font-size:.8rem}}.days{{width:100%;font-size:.75rem}}th,td{{padding-right:.6rem;min-width:3.5rem}}td:last-child{{min-width:6rem}}
table:not(.days) td:nth-child(2){{min-width:5.2rem}}}}
summary{{cursor:pointer;font-weight:600}}
"""
