"""The command tree: help with an example for every command, JSON for scripts, exit codes, and silence."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from deployments.cli.app import app
from tests.cli.shop import history, scoring, tenant_file
from tests.cli.terminal import ORCHARD, Terminal

README = Path(__file__).parents[2] / "README.md"
URLS = ("database_url", "prefect_api_url", "training_registry_uri", "production_registry_uri", "lake_url", "api_url")


def commands(group: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.fixture(scope="module")
def shop(terminal: Terminal, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tenant with models, predictions, actuals and quarantined rows."""
    folder = tmp_path_factory.mktemp("talk")
    terminal("tenants", "add", tenant_file(folder, "talk")).worked()
    bad = history().split("\n")[1].replace("2026-01-01", "tomorrow")
    files = {
        "history": history() + bad + "\n",
        "scoring": scoring(),
        "actuals": history(3, first="2026-06-01", seed=2),
    }
    for purpose, text in files.items():
        (folder / purpose).write_text(text)
    frame = (folder / "actuals").read_text().split("\n")
    keep = [0, 1, 2, 6]
    (folder / "actuals").write_text(
        "\n".join(",".join(line.split(",")[k] for k in keep) for line in frame if line) + "\n"
    )
    for purpose in files:
        terminal("upload", "talk", "sales", purpose, folder / purpose).worked()
    return "talk"


def test_there_are_the_commands_that_were_promised() -> None:
    promised = ["demo", "upload", "run", "models", "results", "receipts", "quarantine", "status"]
    groups = {"tenants": ("add", "list", "show"), "releases": ("list", "approve", "rollback")}
    assert {(name,) for name in promised} <= set(COMMANDS)
    assert {(group, name) for group, names in groups.items() for name in names} <= set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_is_documented(path: tuple[str, ...], terminal: Terminal) -> None:
    command = COMMANDS[path]
    words = " ".join(path)
    assert (command.help or "").strip(), "no docstring"  # type: ignore[attr-defined]
    assert (command.epilog or "").startswith(f"Example: orchard {words}")  # type: ignore[attr-defined]
    mentioned = rf"`orchard {path[0]}\b[^`]*" + (rf"\b{path[1]}\b" if path[1:] else "")
    assert re.search(mentioned, README.read_text()), f"README.md does not mention `orchard {words}`"
    shown = terminal(*path, "--help").worked()
    assert "Example: orchard" in shown.out
    for parameter in command.params:  # type: ignore[attr-defined]
        for option in parameter.opts:
            if option.startswith("--"):
                assert option in shown.out


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_example_of_a_command_can_be_parsed(
    path: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = COMMANDS[path]
    words = command.epilog.removeprefix("Example: orchard ").split()[len(path) :]  # type: ignore[attr-defined]
    monkeypatch.chdir(tmp_path)
    for name in ("flights.csv.gz", "acme.yaml", "erasure-acme.json"):
        Path(name).touch()
    with command.make_context("orchard", words):  # type: ignore[attr-defined]
        pass


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_wrong_use_ends_with_2(path: tuple[str, ...], terminal: Terminal) -> None:
    assert terminal(*path, "--no-such-option").failed(2, "--no-such-option").out == ""


DATA = {
    ("tenants", "list"): {"tenant", "name", "tier", "use_cases"},
    ("releases", "list", "talk", "sales"): {"version", "status", "promoted", "held"},
    ("models", "talk", "sales"): {"partition", "outcome", "estimator", "reason"},
    ("results", "talk", "sales"): {"partition", "prediction"},
    ("results", "talk", "sales", "--health"): {"partition"},
    ("receipts", "talk"): {"what", "status", "account", "error"},
    ("quarantine", "talk", "sales"): {"line", "rule", "row"},
}


@pytest.mark.parametrize("words", DATA, ids=" ".join)
def test_data_comes_as_a_table_or_as_json(orchard: Terminal, shop: str, words: tuple[str, ...]) -> None:
    answer = orchard(*words, "--json").worked()
    assert answer.json
    for row in answer.json:
        assert set(row) >= DATA[words], row
    assert answer.err == ""
    shown = orchard(*words).worked()
    assert len(shown.out.splitlines()) >= 3  # names, a line, a row; or a line per name


def test_commands_that_print_data_have_json(shop: str) -> None:
    silent = {("tenants", "add"), ("audit", "export"), ("releases", "approve"), ("releases", "rollback"), ("down",)}
    silent.add(("costs", "page"))  # it writes a file
    for path, command in COMMANDS.items():
        options = [option for parameter in command.params for option in parameter.opts]  # type: ignore[attr-defined]
        assert ("--json" in options) is (path not in silent), path


def test_rights_on_s3_are_shown_where_there_are_any(orchard: Terminal) -> None:
    orchard("storage", "policy").failed(2, "nothing of these settings is on S3")
    buckets = {name: f"s3://{name.lower()}" for name in ("LAKE", "TRAINING_ARTIFACTS", "PRODUCTION_ARTIFACTS")}
    away = {f"ORCHARD_{name}_URL": url.replace("_", "-") for name, url in buckets.items()}
    login = {"ORCHARD_LAKE_OPTIONS__ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    status = orchard.process("status", "--json", **away).worked().json
    assert "role per tenant" in status["tenants_storage"]
    off = orchard.process("status", **away, ORCHARD_STORAGE__ROLES="false").worked()
    assert "ONE LOGIN OPENS EVERY TENANT" in off.out
    orchard.process("storage", "policy", **away, **login).failed(1, "does not know this login")


def test_a_person_reads_results_and_no_notices_of_libraries(orchard: Terminal) -> None:
    orchard("tenants", "add", tenant_file(Path(), "calm")).worked()
    Path("calm.csv").write_text(history())
    answer = orchard.process("upload", "calm", "sales", "history", "calm.csv").worked()
    assert answer.err.strip() == "what came of it: orchard releases verdicts calm sales · orchard models calm sales"
    assert re.search(r"rows accepted +240\n", answer.out)


def test_the_limit_holds(orchard: Terminal, shop: str) -> None:
    assert len(orchard("models", shop, "sales", "--limit", 2, "--json").json) == 2
    assert len(orchard("results", shop, "sales", "--limit", 4, "--json").json) == 4
    orchard("models", shop, "sales", "--limit", 0).failed(2, "--limit")


def test_models_can_be_narrowed_down_by_outcome(orchard: Terminal, shop: str) -> None:
    assert len(orchard("models", shop, "sales", "--outcome", "trained", "--json").json) == 6
    assert orchard("models", shop, "sales", "--outcome", "failed", "--json").json == []
    orchard("models", shop, "sales", "--outcome", "odd").failed(2, "odd")


def test_status_says_where_everything_is_and_keeps_secrets(orchard: Terminal) -> None:
    facts = orchard("status", "--json").worked().json
    assert set(facts) >= set(URLS)
    assert facts["prefect_api_url"].startswith("http://127.0.0.1:")
    assert f"{facts['prefect_ui_url']}/api" == facts["prefect_api_url"]
    assert facts["lake_url"].startswith("file://")
    open_facts = orchard("status", "--json", "--show-secrets").worked().json
    for name in ("database_url", "training_registry_uri", "production_registry_uri"):
        assert re.match(r"postgresql\+psycopg://\w+:\*\*\*@", facts[name]), facts[name]
        password = re.match(r"postgresql\+psycopg://\w+:([0-9a-f]{64})@", open_facts[name])
        assert password
        assert password.group(1) not in orchard("status").worked().out


def test_status_of_a_platform_that_does_not_run(orchard: Terminal, tmp_path: Path) -> None:
    facts = orchard.process("status", "--json", ORCHARD_HOME=str(tmp_path / "other"), PREFECT_API_URL="").worked().json
    assert set(facts) >= set(URLS)
    assert facts["database_url"] is None
    assert facts["prefect_api_url"] is None


def test_settings_that_do_not_fit(orchard: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHARD_PREFECT_PORT", "many")
    answer = orchard("status").failed(2, "settings do not fit", "prefect_port")
    assert "default factory" not in answer.err  # what follows from the mistake is none


def test_a_misspelt_setting_is_told(orchard: Terminal, tmp_path: Path) -> None:
    others = {"ORCHARD_LAKE": "s3://a", "orchard_storage_roles__x": "false", "ORCHARD_TIER": "gold", "ORCHARD_X": ""}
    answer = orchard.process("status", ORCHARD_HOME=str(tmp_path / "other"), PREFECT_API_URL="", **others).worked()
    told = re.findall(r"(\S+) is no setting, and is ignored: is (\S+) meant", answer.err)
    assert told == [("ORCHARD_LAKE", "ORCHARD_LAKE_URL"), ("orchard_storage_roles__x", "ORCHARD_STORAGE")]


def test_an_unforeseen_error_is_one_line_and_a_log_file(
    orchard: Terminal, shop: str, monkeypatch: pytest.MonkeyPatch, settings: object
) -> None:
    import deployments.status

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect\nof two lines")

    monkeypatch.setattr(deployments.status, "platform_status", broken)  # there is no way to provoke an unknown defect
    answer = orchard("status").failed(1, "this should not have happened: ZeroDivisionError: a defect")
    [log] = re.findall(r"where  (\S+\.log)", answer.err)
    assert Path(log).parent.name == "logs"
    text = Path(log).read_text()
    assert "Traceback (most recent call last)" in text
    assert "orchard status" in text


def test_an_error_inside_a_flow_is_a_message_here_and_a_traceback_in_prefect(orchard: Terminal, shop: str) -> None:
    answer = orchard("run", shop, "--partition", "store=9,sku=9").failed(2, "no partition 'store=9,sku=9'")
    assert "Flow run" not in answer.err
    from prefect.client.orchestration import get_client

    query = {"flows": {"name": {"any_": ["training"]}}, "sort": "START_TIME_DESC", "limit": 1}
    with get_client(sync_client=True) as client:  # Prefect asks for its login
        [run] = client.request("POST", "/flow_runs/filter", json=query).json()
        assert run["state_name"] == "Failed"
        wanted = {"logs": {"flow_run_id": {"any_": [run["id"]]}}}
        logs: list[dict[str, str]] = []
        deadline = time.monotonic() + 20
        # They are sent in the background, every other second, and not all at once.
        while not any("Traceback" in line["message"] for line in logs) and time.monotonic() < deadline:
            time.sleep(0.2)
            logs = client.request("POST", "/logs/filter", json=wanted).json()
    assert any("NotFound" in line["message"] and "Traceback" in line["message"] for line in logs)


def test_a_reader_that_stops_reading_sees_no_traceback(orchard: Terminal, shop: str) -> None:
    command = f"{ORCHARD} results {shop} sales --limit 1000 --json | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[\n"
    assert done.stderr == ""
