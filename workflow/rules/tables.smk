def table_output(name, category, table, csv=None, rows=None):
    """Returns the output of a rule that makes a table: each format, and where asked for its rows.

    What the report shows is given as a caption (a file of workflow/report) and a label.

    Arguments:
        name: The table's name, which may hold wildcards.
        category: The report's category.
        table: The caption and label of the table as a page.
        csv: Those of the table at full precision, if the report shows it.
        rows: Those of the metric rows that the table is made of; "plain" if there are such rows
            and the report does not show them.
    """
    stem = f"{RESULTS}/tables/{name}"

    def shown(path, kind, told):
        caption, label = told
        return report(
            path,
            caption=f"../report/{caption}.rst",
            category=category,
            labels={"result": label, "format": kind},
        )

    output = {
        "csv": shown(f"{stem}.csv", "csv", csv) if csv else f"{stem}.csv",
        "html": shown(f"{stem}.html", "html", table),
        "markdown": f"{stem}.md",
        "latex": f"{stem}.tex",
    }
    if rows:
        path = f"{stem}_rows.csv"
        output["rows"] = path if rows == "plain" else shown(path, "csv", rows)
    return output
