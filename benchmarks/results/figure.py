"""The picture of what training on the picks gave, as SVG."""

from pathlib import Path

from benchmarks.results.tables import ARMS, ROOT, Figures

FILE: Path = ROOT / "docs/images/gain.svg"
GROUP = "4,000 tokens, new"
LEFT, WIDTH, LINE, TOP = 206, 380, 26, 50
COLOR = {"best": "#1a73e8", "random": "#888", "oracle": "#188038"}


def gains(groups: Figures) -> str:
    """Mean gain of every arm with its interval, on tasks that are new to the model."""
    arms, n_tasks = groups[GROUP]["arms"], groups[GROUP]["targets"]
    scale = WIDTH / max(arms[arm]["gain"]["hi"] for arm in ARMS)
    width, height = LEFT + WIDTH + 40, TOP + LINE * len(ARMS) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="15">',
        '<rect width="100%" height="100%" rx="8" fill="#f8f9fa"/>',
        f'<text x="14" y="25" font-weight="bold">Bits of held-out responses that training saved,'
        f" {n_tasks} new tasks, 4,000 tokens</text>",
    ]
    for tick in (0, 0.1, 0.2, 0.3, 0.4):
        x = LEFT + 14 + tick * scale
        parts.append(
            f'<path d="M{x:.1f} {TOP - 10} V{height - 22}" stroke="#ddd"/>'
            f'<text x="{x:.1f}" y="{height - 6}" fill="#555" text-anchor="middle">{tick:.0%}</text>'
        )
    for line, (arm, label) in enumerate(ARMS.items()):
        gain, y, color = arms[arm]["gain"], TOP + LINE * line + 6, COLOR.get(arm, "#444")
        low, mean, high = (LEFT + 14 + gain[key] * scale for key in ("lo", "mean", "hi"))
        weight = ' font-weight="bold"' if arm == "best" else ""
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 5}" text-anchor="end"{weight}>{label.strip("*`")}</text>'
            f'<path d="M{low:.1f} {y} H{high:.1f}" stroke="{color}" stroke-width="2"/>'
            f'<circle cx="{mean:.1f}" cy="{y}" r="5" fill="{color}"/>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"
