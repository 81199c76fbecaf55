"""The endpoint commands against an HTTP server that answers as the management API does."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

API = "/api/2.0/serving-endpoints"


class FakeApi(ThreadingHTTPServer):
    """One endpoint `iris` whose deployment takes `steps` polls and ends in `final_state`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.exists = False
        self.updating = False
        self.steps = 2
        self.final_state = "NOT_UPDATING"
        self.log = ""
        self.configs: list[tuple[str, dict]] = []
        self.tags: dict[str, str] = {}
        self.scaler_answers = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def deploy(self, method: str, config: dict) -> dict:
        self.exists = True
        self.configs.append((method, config))
        return self.endpoint("IN_PROGRESS")

    def poll(self) -> dict:
        self.steps -= 1
        return self.endpoint("IN_PROGRESS" if self.steps > 0 else self.final_state)

    def endpoint(self, update: str) -> dict:
        message = {"UPDATE_FAILED": "No module named 'xgboost'"}.get(update, "Building.")
        entity = {"name": "iris-3", "entity_name": "iris", "entity_version": "3"}
        entity |= {"scale_to_zero_enabled": True, "state": {"deployment_state_message": message}}
        entity |= {
            "servery": {"min_replicas": 0, "max_replicas": 4, "desired_replicas": 3, "ready_replicas": 2}
        }
        return {
            "name": "iris",
            "state": {"ready": "NOT_READY", "config_update": update},
            "pending_config": {"served_entities": [entity]},
        }

    def scaling(self, decisions: int) -> dict:
        last = {"desired_replicas": 3, "reason": "load 11.5", "decided_at": 1_700_000_000_000}
        last["seen"] = {"in_flight": 11.5, "queued": 2.0}
        message = "Has 2 of 3 replicas. No worker has room."
        entity = {
            "name": "iris-3",
            "id": "e1",
            "config_version": 7,
            "state": {"deployment": "DEPLOYMENT_READY", "deployment_state_message": message},
            "slots_per_replica": 4,
            "scale_to_zero_enabled": True,
            "min_replicas": 0,
            "max_replicas": 4,
            "desired_replicas": 3,
            "ready_replicas": 2,
            "starting_replicas": 0,
            "waiting_replicas": 1,
            "stopping_replicas": 0,
            "target_concurrency": 3.2 if self.scaler_answers else None,
            "target_concurrency_is": "learned",
            "last_decision": last if self.scaler_answers else None,
        }
        decision = {
            "served_entity_name": "iris-3",
            "served_entity_id": "e1",
            "config_version": 7,
            "before": 1,
            "after": 3,
            "reason": "load 11.5",
            "decided_by": "scaler",
            "seen": {"in_flight": 11.5},
            "decided_at": 1_700_000_000_000,
        }
        problem = {"answered": False, "message": "The scaler does not answer: nobody there."}
        return {
            "name": "iris",
            "id": "ep1",
            "scale_to_zero_seconds": 60.0,
            "scaler": {"answered": True} if self.scaler_answers else problem,
            "compute": [
                {"kind": "workspace", "name": "1", "slots": 64, "used": 8},
                {"kind": "workers", "slots": 64, "used": 12},
            ],
            "served_entities": [entity],
            "decisions": [decision] * decisions if self.scaler_answers else [],
        }


class Handler(BaseHTTPRequestHandler):
    server: FakeApi

    def do_GET(self) -> None:
        if self.headers["Authorization"] != "Bearer dapi1":
            self.answer(401, {"error_code": "UNAUTHENTICATED", "message": "who are you?"})
        elif self.path.endswith("/iris-3/build-logs"):
            self.server.log += f"step {len(self.server.log.splitlines()) + 1}\n"
            if self.server.steps <= 0 and self.server.final_state == "UPDATE_FAILED":
                self.server.log += "The build failed: No module named 'xgboost'\n"
            self.answer(200, {"logs": self.server.log})
        elif self.path.endswith("/iris-3/logs"):
            self.answer(200, {"logs": "hello from predict\n"})
        elif self.path == API:
            self.answer(200, {"endpoints": [self.server.endpoint("NOT_UPDATING")]})
        elif self.path.startswith(f"{API}/iris/scaling?limit="):
            self.answer(200, self.server.scaling(int(self.path.rpartition("=")[2])))
        elif self.server.exists:
            self.answer(200, self.server.poll())
        else:
            self.answer(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such thing"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == API:
            asked = json.loads(body)
            self.server.tags = {tag["key"]: tag["value"] for tag in asked["tags"]}
            self.answer(200, self.server.deploy("POST", asked["config"]))
        elif self.path == f"{API}/iris/config:cancel":
            self.server.updating = False
            self.answer(200, self.server.endpoint("UPDATE_CANCELED"))
        elif b"boom" in body:
            error = {"error_code": "BAD_REQUEST", "message": "It raised."}
            self.answer(400, error | {"stack_trace": "Traceback\nZeroDivisionError: boom\n"})
        else:
            self.answer(200, {"body": body.decode(), "type": self.headers["Content-Type"]})

    def do_PATCH(self) -> None:
        assert self.path == f"{API}/iris/tags"
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.tags |= {tag["key"]: tag["value"] for tag in body["add_tags"]}
        self.answer(200, {"tags": body["add_tags"]})

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.updating:
            self.answer(409, {"error_code": "RESOURCE_CONFLICT", "message": "It is being updated."})
        else:
            self.answer(200, self.server.deploy("PUT", json.loads(body)))

    def do_DELETE(self) -> None:
        self.answer(200, {})

    def answer(self, status: int, body: dict) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def api() -> Iterator[FakeApi]:
    server = FakeApi()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def servery(
    api: FakeApi, *arguments: str, token: str = "dapi1", stdin: str = "", data_dir: str = ".servery"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "servery_local", *arguments],
        env={
            "DATABRICKS_HOST": api.url,
            "DATABRICKS_TOKEN": token,
            "SERVERY_DATA_DIR": data_dir,
            "PATH": "/usr/bin:/bin",
        },
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_deploy_creates_an_endpoint_and_shows_each_part_of_the_build_log_once(api: FakeApi) -> None:
    result = servery(api, "deploy", "models:/iris/3", "--name", "iris", "--env", "A=b")
    assert result.returncode == 0, result.stderr
    entity = {"entity_name": "iris", "entity_version": "3", "workload_size": "Small"}
    entity |= {"scale_to_zero_enabled": False, "environment_vars": {"A": "b"}}
    assert api.configs == [("POST", {"served_entities": [entity]})]
    for step in api.log.splitlines():
        assert result.stdout.splitlines().count(step) == 1
    assert "iris is ready" in result.stdout
    assert "\x1b" not in result.stdout


def test_deploy_updates_an_endpoint_that_exists(api: FakeApi) -> None:
    api.exists = True
    result = servery(api, "deploy", "models:/iris@champion", "--name", "iris", "--no-wait")
    assert result.returncode == 0, result.stderr
    [(method, config)] = api.configs
    assert method == "PUT"
    assert config["served_entities"][0]["entity_version"] == "@champion"


def test_an_update_does_not_show_the_build_of_before_again(api: FakeApi) -> None:
    api.exists, api.steps = True, 4
    result = servery(api, "deploy", "models:/iris/3", "--name", "iris", "--scale-to-zero")
    assert result.returncode == 0, result.stderr
    first, *later = api.log.splitlines()
    shown = result.stdout.splitlines()
    assert first not in shown
    assert all(step in shown for step in later)


def test_an_update_in_progress_refuses_another_and_can_be_canceled(api: FakeApi) -> None:
    api.exists = api.updating = True
    deploy = ("deploy", "models:/iris/4", "--name", "iris", "--no-wait")
    refused = servery(api, *deploy)
    assert refused.returncode == 1
    assert "RESOURCE_CONFLICT: It is being updated." in refused.stderr
    assert "servery cancel iris" in refused.stderr
    assert servery(api, "cancel", "iris").stdout == "canceled the update of endpoint iris\n"
    assert servery(api, *deploy).returncode == 0
    canceled = servery(api, "cancel", "iris", "--json")
    assert json.loads(canceled.stdout)["state"]["config_update"] == "UPDATE_CANCELED"


@pytest.mark.parametrize("exists", [False, True])
def test_deploy_tags_the_endpoint_it_creates_or_updates(api: FakeApi, exists: bool) -> None:
    api.exists = exists
    tags = ("--tag", "servery.scale_to_zero_seconds=60", "--tag", "team=a=b")
    result = servery(api, "deploy", "models:/iris/3", "--name", "iris", "--no-wait", "--scale-to-zero", *tags)
    assert result.returncode == 0, result.stderr
    assert api.tags == {"servery.scale_to_zero_seconds": "60", "team": "a=b"}
    assert api.configs[0][1]["served_entities"][0]["scale_to_zero_enabled"]


def test_a_tag_without_a_value_is_refused_before_anything_is_sent(api: FakeApi) -> None:
    result = servery(api, "deploy", "models:/iris/3", "--name", "iris", "--tag", "team")
    assert (result.returncode, api.configs) == (1, [])
    assert "'team' is no tag: use KEY=VALUE" in result.stderr


def test_an_endpoints_scaling_is_explained_to_people_and_programs(api: FakeApi) -> None:
    explained = servery(api, "explain", "iris", "--decisions", "1")
    assert explained.returncode == 0, explained.stderr
    for told in (
        "workspace 1 8 of 64 slots used, workers 12 of 64 slots used",
        "2 ready of 3 wanted (1 waiting); from 0 to 4, 4 slots each",
        "after 60 s without a request",
        "3.2 requests at a time per replica (learned)",
        "Has 2 of 3 replicas. No worker has room.",
        "in flight 11.5, queued 2",
        "3 wanted, ",
        "iris-3         1 -> 3    scaler  load 11.5\n",
    ):
        assert told in " ".join(explained.stdout.split()) or told in explained.stdout, told
    assert "scaler does not answer" not in explained.stdout
    assert json.loads(servery(api, "explain", "iris", "--json").stdout) == api.scaling(10)


def test_a_scaler_that_does_not_answer_is_told_and_the_rest_is_shown(api: FakeApi) -> None:
    api.scaler_answers = False
    explained = servery(api, "explain", "iris")
    assert explained.returncode == 0, explained.stderr
    assert "The scaler does not answer: nobody there." in explained.stdout
    assert "2 ready of 3 wanted" in explained.stdout
    assert "decided" not in explained.stdout


def test_a_failed_deployment_tells_why_and_fails(api: FakeApi) -> None:
    api.final_state = "UPDATE_FAILED"
    result = servery(api, "deploy", "models:/iris/3", "--name", "iris")
    assert result.returncode == 1
    assert (result.stdout + result.stderr).count("No module named 'xgboost'") == 1


def test_a_failed_deployment_answers_with_json_too(api: FakeApi) -> None:
    api.final_state = "UPDATE_FAILED"
    result = servery(api, "deploy", "models:/iris/3", "--name", "iris", "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout) == api.endpoint("UPDATE_FAILED")


def test_an_interrupted_deploy_says_that_the_deployment_goes_on(api: FakeApi) -> None:
    api.steps = 10_000
    process = subprocess.Popen(
        [sys.executable, "-m", "servery_local", "deploy", "models:/iris/3", "--name", "iris"],
        env={"DATABRICKS_HOST": api.url, "DATABRICKS_TOKEN": "dapi1", "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell has its background jobs ignore Ctrl-C, and what they start inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    while "step 1" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on" in errors
    assert "servery cancel iris" in errors
    assert "Traceback" not in errors


def test_a_deploy_that_waits_no_longer_says_how_far_it_is(api: FakeApi) -> None:
    api.steps = 10_000
    result = servery(api, "deploy", "models:/iris/3", "--name", "iris", "--timeout", "1")
    assert result.returncode == 1
    assert "iris is not ready after 1 s; the deployment goes on.\niris-3: Building.\n" in result.stderr


@pytest.mark.parametrize(("given", "sent"), [("MEDIUM", "Medium"), ("small", "Small")])
def test_a_size_is_taken_in_any_case(api: FakeApi, given: str, sent: str) -> None:
    servery(api, "deploy", "models:/iris/3", "--name", "iris", "--size", given, "--no-wait")
    assert api.configs[0][1]["served_entities"][0]["workload_size"] == sent


def test_an_unknown_size_is_a_mistake_in_the_command(api: FakeApi) -> None:
    result = servery(api, "deploy", "models:/iris/3", "--name", "iris", "--size", "smal")
    assert result.returncode == 2
    assert "'smal' is no workload size: choose Small, Medium or Large." in " ".join(
        result.stderr.replace("│", "").split()
    )
    assert api.configs == []


def test_an_exception_of_the_model_is_shown(api: FakeApi) -> None:
    result = servery(api, "query", "iris", "-d", '{"inputs": "boom"}')
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == "Traceback\nZeroDivisionError: boom\nerror: BAD_REQUEST: It raised.\n"


def test_what_a_model_printed_and_its_build_are_shown(api: FakeApi) -> None:
    api.exists = True
    assert servery(api, "logs", "--endpoint", "iris").stdout == "hello from predict\n"
    assert servery(api, "logs", "-e", "iris", "--build").stdout == "step 1\n"


def test_a_directory_that_is_named_wins_over_the_environment(api: FakeApi, tmp_path) -> None:
    assert servery(api, "list", data_dir=str(tmp_path)).returncode == 0
    result = servery(api, "list", "--data-dir", str(tmp_path))
    assert result.returncode == 1
    assert f"does not run on {tmp_path}" in result.stderr


def test_an_address_of_the_environment_where_nothing_answers_is_told_as_such(api: FakeApi) -> None:
    api.shutdown()
    api.server_close()
    result = servery(api, "list")
    assert result.returncode == 1
    assert f"nothing answers at {api.url}, which is the address in DATABRICKS_HOST" in result.stderr


def test_json_output_is_what_the_api_answered_and_nothing_else(api: FakeApi) -> None:
    result = servery(api, "deploy", "models:/iris/3", "--name", "iris", "--json")
    assert json.loads(result.stdout) == api.endpoint("NOT_UPDATING")
    assert "step 1" in result.stderr
    listed = servery(api, "list", "--json")
    assert json.loads(listed.stdout) == {"endpoints": [api.endpoint("NOT_UPDATING")]}


def test_endpoints_are_shown_to_people(api: FakeApi) -> None:
    api.exists = True
    assert "iris/3" in servery(api, "list").stdout
    shown = servery(api, "get", "iris").stdout
    assert "iris-3" in shown
    assert "Building." in shown
    assert "2 of 3 (from 0 to 4)" in shown
    assert servery(api, "delete", "iris").stdout == "deleted endpoint iris\n"


@pytest.mark.parametrize("way", ["inline", "file", "stdin"])
def test_a_query_takes_its_body_from_anywhere(api: FakeApi, tmp_path, way: str) -> None:
    file = tmp_path / "body.json"
    file.write_text('{"inputs": [1]}')
    data = {"inline": '{"inputs": [1]}', "file": f"@{file}", "stdin": "-"}[way]
    result = servery(api, "query", "iris", "-d", data, stdin='{"inputs": [1]}')
    assert json.loads(result.stdout) == {"body": '{"inputs": [1]}', "type": "application/json"}


def test_an_error_of_the_api_is_printed_with_its_code(api: FakeApi) -> None:
    result = servery(api, "get", "iris", token="wrong")
    assert result.returncode == 1
    assert result.stderr == "error: UNAUTHENTICATED: who are you?\n"


def test_without_a_stack_the_two_ways_to_one_are_told(api: FakeApi, tmp_path) -> None:
    result = servery(api, "list", token="", data_dir=str(tmp_path))
    assert result.returncode == 1
    assert "servery up" in result.stderr
    assert "DATABRICKS_HOST" in result.stderr
