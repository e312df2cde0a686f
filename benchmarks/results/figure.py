"""The picture of what training on the picks gave, as SVG."""

from pathlib import Path

from benchmarks.results.tables import ARMS, ROOT, Figures

FILE: Path = ROOT / "docs/images/gain.svg"
LEFT, WIDTH, LINE, TOP = 215, 330, 24, 46
GROUPS = ("4,000 tokens, new", "12,000 tokens, new")
COLOR = {"best": "#1a73e8", "random": "#999", "oracle": "#188038"}


def gains(groups: Figures) -> str:
    """Mean gain of every arm with its interval, a column for each number of tokens."""
    highest = max(row["gain"]["hi"] for name in GROUPS for row in groups[name]["arms"].values())
    scale = WIDTH / (highest + 0.05)
    width, height = LEFT + 2 * WIDTH + 60, TOP + LINE * len(ARMS) + 22
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        ' font-family="sans-serif" font-size="14">',
        "<title>Share of the bits of held-out responses that training saved</title>",
        '<rect width="100%" height="100%" rx="8" fill="#f8f9fa"/>',
    ]
    for column, name in enumerate(GROUPS):
        left = LEFT + column * (WIDTH + 25) + 15
        tokens, targets = name.split(",  ")[0].rpartition(",")[0], groups[name]["targets"]
        parts.append(
            f'<text x="{left}" y="24" font-weight="bold">{tokens}, {targets} new tasks</text>'
        )
        for tick in (0, 0.1, 0.2, 0.3, 0.4):
            x = left + tick * scale
            parts.append(f'<path d="M{x:.1f} {TOP - 10} V{height - 20}" stroke="#ddd"/>')
            parts.append(
                f'<text x="{x:.1f}" y="{height - 6}" fill="#555" text-anchor="middle"'
                f' font-size="12">{tick:g}</text>'
            )
        for line, arm in enumerate(ARMS):
            gain, y = groups[name]["arms"][arm]["gain"], TOP + LINE * line + 6
            color = COLOR.get(arm, "#444")
            low, mean, high = (left + gain[key] * scale for key in ("lo", "mean", "hi"))
            parts.append(
                f'<path d="M{low:.1f} {y} H{high:.1f}" stroke="{color}" stroke-width="2"/>'
                f'<circle cx="{mean:.1f}" cy="{y}" r="5" fill="{color}"/>'
            )
    for line, (arm, label) in enumerate(ARMS.items()):
        words = label.replace("*", "").replace("`", "")
        weight = ' font-weight="bold"' if arm == "best" else ""
        y = TOP + LINE * line + 11
        parts.append(f'<text x="{LEFT - 8}" y="{y}" text-anchor="end"{weight}>{words}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
