"""Names that a renderer or a spreadsheet would act on are written out."""

import csv
import io

import pytest

from analysis.render import csv_text, markdown_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>x</script>", "&lt;script&gt;x&lt;/script&gt;"),
        ("[a](b)", "\\[a\\](b)"),
        ("`a|b`", "\\`a\\|b\\`"),
        ("a\\|b", "a\\\\\\|b"),
        ("see https://x.example", "see https&#58;//x.example"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("a\r\nb\u2028c", "a b c"),
        ("0.91 ± 0.02", "0.91 ± 0.02"),
    ],
)
def test_markdown_reads_no_command_in_a_name(text, shown):
    assert markdown_text(text) == shown


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", " =1", "\r=1"])
def test_a_spreadsheet_computes_no_name(text):
    sink = io.StringIO()
    csv.writer(sink).writerow([csv_text(text)])
    assert next(csv.reader(io.StringIO(sink.getvalue(), newline="")))[0] == f"'{text}"


@pytest.mark.parametrize("value", ["-0.5", "+3", "1e-4", "-1.5e+3", -0.5, 3, "", "a-b", "−0.5"])
def test_numbers_stay_numbers(value):
    assert csv_text(value) == value
