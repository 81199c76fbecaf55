"""``python -m deploy.grafana.boards``: write the dashboards' files."""

from deploy.grafana.boards import DIRECTORY, dashboards

for name, text in dashboards().items():
    (DIRECTORY / name).write_text(text)
