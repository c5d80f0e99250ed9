import re
import subprocess
import sys


def test_the_page_of_the_configuration_is_up_to_date(repository):
    page = repository / "docs" / "configuration.md"
    script = "import document_configuration as d; print(d.page(), end='')"
    made = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": f"{repository / 'scripts'}:{repository}", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert page.read_text(encoding="utf-8") == made.stdout, "run `make docs`"


def test_links_between_documents_lead_somewhere(repository):
    pages = [*repository.glob("*.md"), *repository.glob("docs/**/*.md")]
    broken = []
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(repository)}: {target}")
    assert not broken
