"""Results as a table, as JSON, and as an SVG chart."""
import html

COLUMNS = (
    ("accept/s", lambda r: r.get("accept_per_s"), "{:,.0f}"),
    ("end to end/s", lambda r: r.get("end_to_end_per_s"), "{:,.0f}"),
    ("CPU s/1000", lambda r: r.get("cpu_s_per_1000"), "{:.3f}"),
    ("RSS MiB", lambda r: mib(r.get("rss_peak_bytes")), "{:,.0f}"),
    ("written/msg", lambda r: r.get("written_per_message"), "{:,.0f}"),
    ("device/msg", lambda r: r.get("device_written_per_message"), "{:,.0f}"),
    ("syncs/msg", lambda r: r.get("syncs_per_message"), "{:.3f}"),
    ("accept p50/p99 ms", lambda r: pair(r.get("accept_latency")), "{}"),
    ("delivery p50/p99 ms", lambda r: pair(r.get("delivery_latency")), "{}"),
)
COLOURS = {"postfix": "#d98c5f", "postfix-tuned": "#b8602c", "sluiced": "#2b6cb0", "services": "#63a4d8"}


def mib(count):
    return None if not count else count / 2**20


def pair(latency):
    if not latency or not latency.get("count", 1):
        return None
    return f"{latency['p50_us'] / 1000:,.1f} / {latency['p99_us'] / 1000:,.1f}"


def cell(value, form):
    return "-" if value is None else form.format(value)


def table(profile, results):
    """Lines of text for one profile; ratios against the tuned Postfix, or else the stock one, where either ran."""
    rows = [["", *[title for title, _, _ in COLUMNS], "ratio"]]
    reference = next((r for name in ("postfix-tuned", "postfix") for r in results if r["system"] == name and r.get("end_to_end_per_s")), None)
    for result in results:
        ratio = None
        if reference and result.get("end_to_end_per_s") and result["system"] != "sink":
            ratio = result["end_to_end_per_s"] / reference["end_to_end_per_s"]
        rows.append([result["title"], *[cell(get(result), form) for _, get, form in COLUMNS], cell(ratio, "{:.2f}×")])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [f"{profile.name}: {profile.what}"]
    for row in rows:
        lines.append("  " + "  ".join(text.ljust(width) if i == 0 else text.rjust(width) for i, (text, width) in enumerate(zip(row, widths))))
    for result in results:
        for note in result.get("notes", []):
            lines.append(f"  {result['title']}: {note}")
    return lines


def svg(runs):
    """End-to-end rate and CPU, a group of bars for each profile."""
    width, bar, gap, left, right = 900, 16, 14, 230, 190
    y = 60
    parts = []
    for title, key, form in (("End to end, messages a second", "end_to_end_per_s", "{:,.0f}"),
                             ("CPU seconds for 1,000 messages", "cpu_s_per_1000", "{:.3f}")):
        # Not the generator alone: beside it, the systems' bars would all look alike.
        bars = [(profile, r) for profile, results in runs for r in results if r.get(key) and r["system"] != "sink"]
        if not bars:
            continue
        parts.append(f'<text x="20" y="{y}" font-size="16" font-weight="bold">{html.escape(title)}</text>')
        y += 16
        top = max(r[key] for _, r in bars)
        current = None
        for profile, result in bars:
            if profile is not current:
                current = profile
                y += gap
                parts.append(f'<text x="20" y="{y + 4}" font-size="12" fill="#444">{html.escape(profile.what)}</text>')
                y += 10
            length = max(1, (width - left - right) * result[key] / top)
            parts.append(f'<text x="{left - 8}" y="{y + bar - 4}" font-size="12" text-anchor="end">{html.escape(result["title"])}</text>')
            parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 3}" fill="{COLOURS.get(result["system"], "#888")}"/>')
            parts.append(f'<text x="{left + length + 6:.1f}" y="{y + bar - 5}" font-size="12">{form.format(result[key])}</text>')
            y += bar
        y += 40
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}" font-family="sans-serif">'
            f'<rect width="100%" height="100%" fill="white"/><text x="20" y="28" font-size="18" font-weight="bold">Sluice bench</text>')
    return head + "".join(parts) + "</svg>\n"
