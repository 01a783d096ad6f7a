"""The page in a real browser: it shows its matrix, filters without a script, and breaks no rule of its own content policy."""

import re
import shutil
import subprocess

import pytest

from meshtls.report import FORMATS
from tests.report.sample import REPORT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium")]

# what a reader does, as a script that only this test adds (with a content policy that lets it)
PROBE = """<script>
const seen = id => document.querySelector(id);
const shown = e => e.offsetParent !== null;
const out = {};
out.findings = [...document.querySelectorAll('.finding')].filter(shown).length;
out.columns = document.querySelectorAll('.matrix thead th').length;
out.overflow = document.documentElement.scrollWidth > window.innerWidth;
seen('#ns').value = [...seen('#ns').options].find(o => o.text === 'shop').value;
out.shop = [...document.querySelectorAll('.finding')].filter(shown).map(f => f.querySelector('.code').textContent);
seen('#show-error').checked = false;
out.noErrors = [...document.querySelectorAll('.finding')].filter(shown).length;
out.rows = [...document.querySelectorAll('.matrix tbody tr')].filter(shown).length;
document.title = 'RESULT ' + JSON.stringify(out);
</script></body>"""


def _run(tmp_path, page, width):
    file = tmp_path / "report.html"
    file.write_text(page)
    return subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1200",
         "--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom", file.as_uri()],
        capture_output=True, text=True, timeout=120, check=True)


def test_the_style_is_accepted_by_the_pages_own_policy(tmp_path):
    done = _run(tmp_path, FORMATS["html"](REPORT), 1200)

    assert "Content Security Policy" not in done.stderr
    assert "Who reaches whom under STRICT" in done.stdout


@pytest.mark.parametrize("width", [1200, 500])
def test_filters_work_without_a_script_of_the_page(tmp_path, width):
    page = FORMATS["html"](REPORT)
    page = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", page).replace("</body>", PROBE)

    done = _run(tmp_path, page, width)

    result = re.search(r"RESULT (\{.*?\})</title>", done.stdout)
    assert result, done.stdout[:500]
    import json

    assert json.loads(result[1]) == {"findings": 4, "columns": 4, "overflow": False, "shop": ["MT201", "MT270"], "noErrors": 0, "rows": 1}
