"""The Jenkinsfile, run without Jenkins by deploy/jenkins/test/run.groovy; `sh` steps for real."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import debian
from tests.serving.conftest import Server

STEPS = {
    "Lint": ["lint", "manifests alerts", "image-lint jenkins-lint"],
    "This stack": ["test"],
    "Modern stack": ["test-modern"],
    "Images": ["image"],
    "Scan": ["sbom"],
    "Integration": ["test-slow"],
    "Train": ["train"],
    "Publish": ["promote"],
    "Deploy": ["deploy"],
    "Smoke test": ["smoke"],
}
"""The targets of each stage, of a build of main that goes to production."""
NOT_RUN = ("test", "test-modern", "image", "image-lint", "test-slow", "promote")
"""What takes too long here (tests, images) or needs a registry: make only expands these targets."""


@pytest.fixture
def jenkins(repository):
    return repository / "deploy" / "jenkins"


@pytest.fixture
def run(repository, jenkins, tmp_path):
    """Runs the Jenkinsfile; returns its lines, and the result.

    Arguments: the script that takes the place of make, NAME=VALUE of build and environment.
    """
    if shutil.which("mvn") is None or shutil.which("java") is None:
        pytest.skip("no Maven and Java here, which run the Jenkinsfile")
    subprocess.run([repository / "scripts" / "setup_java.sh"], check=True)

    def run_it(make: str, *given: str, workspace: Path = repository) -> tuple[list[dict], str]:
        programs = tmp_path / "programs"
        programs.mkdir(exist_ok=True)
        (programs / "make").write_text(f"#!/usr/bin/env bash\n{make}\n")
        (programs / "make").chmod(0o755)
        command = ["java", "-cp", f"{repository}/.java-tools/*", "groovy.ui.GroovyMain"]
        command += [jenkins / "test" / "run.groovy", jenkins / "Jenkinsfile", workspace, *given]
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        (tmp_path / "output").write_text(done.stdout + done.stderr)
        assert '"result"' in done.stdout, done.stdout + done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return lines[:-1], lines[-1]["result"]

    return run_it


def made(lines):
    """The targets that were made, by stage."""
    found: dict[str, list[str]] = {}
    for line in lines:
        if "sh" in line:
            found.setdefault(line["stage"], []).append(line["sh"].removeprefix("make "))
    return found


def outcome(text):
    """A make that does nothing; after a training, this is the outcome."""
    return f'[ "$1" != train ] || {{ mkdir -p build/train && echo {text} >build/train/outcome; }}'


@pytest.mark.slow
def test_a_build_of_main_goes_to_production(run, tmp_path):
    lines, result = run(
        outcome("pushed"), "BRANCH_NAME=main", "PROMOTE=automatic", workspace=tmp_path
    )
    assert (made(lines), result) == (STEPS, "SUCCESS")
    secrets = {line["stage"]: line["secrets"] for line in lines if line.get("secrets")}
    assert secrets == {
        "Publish": ["REGISTRY_AUTH_FILE"],
        "Deploy": ["KUBECONFIG"],
        "Smoke test": ["FRAUD_SMOKE_TOKEN"],
    }


@pytest.mark.slow
@pytest.mark.parametrize("stage", STEPS)
def test_what_fails_ends_the_build(run, tmp_path, stage):
    target = STEPS[stage][-1].split()[-1]
    make = f'case " $* " in *" {target} "*) exit 1;; esac; {outcome("pushed")}'
    lines, result = run(make, "BRANCH_NAME=main", "PROMOTE=automatic", workspace=tmp_path)
    assert result == "FAILURE"
    stages = [*STEPS]
    expected = {name: STEPS[name] for name in stages[: stages.index(stage) + 1]}
    if stage == "This stack":  # the other one runs at the same time
        expected["Modern stack"] = STEPS["Modern stack"]
    if stage in ("Deploy", "Smoke test"):
        expected["Release"] = ["undeploy"]
        assert lines[-1]["secrets"] == ["KUBECONFIG"]
    assert made(lines) == expected


@pytest.mark.slow
@pytest.mark.parametrize("verdict", ["not_blessed", "replay"])
def test_a_model_that_is_not_pushed_is_not_promoted(run, tmp_path, verdict):
    lines, result = run(
        outcome(verdict), "BRANCH_NAME=main", "PROMOTE=automatic", workspace=tmp_path
    )
    assert result == "UNSTABLE"
    assert {"stage": "Train", "unstable": f"the run ended with: {verdict}"} in lines
    assert [*made(lines)][-1] == "Train"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "asked", "last", "result"),
    [
        (["BRANCH_NAME=main"], True, "Smoke test", "SUCCESS"),
        (["BRANCH_NAME=main", "ANSWER=abort"], True, "Publish", "ABORTED"),
        (["BRANCH_NAME=main", "PROMOTE=never"], False, "Train", "SUCCESS"),
        (["BRANCH_NAME=topic", "PROMOTE=automatic"], False, "Train", "SUCCESS"),
    ],
)
def test_who_promotes(run, tmp_path, given, asked, last, result):
    lines, found = run(outcome("pushed"), *given, workspace=tmp_path)
    assert any("asked" in line for line in lines) == asked
    assert ([*made(lines)][-1], found) == (last, result)


@pytest.mark.slow
def test_no_agent_waits_for_the_answer_and_every_step_has_one(run, tmp_path):
    lines, _ = run(outcome("pushed"), "BRANCH_NAME=main", workspace=tmp_path)
    (question,) = [line for line in lines if "asked" in line]
    assert question["asked"] == "Promote abc1234 to production?"
    assert (question["agents"], question["limits"]) == ([], ["1 DAYS"])
    steps = [line for line in lines if "sh" in line]
    assert all(line["agents"] for line in steps)
    assert {line["limits"][0] for line in steps} == {"6 HOURS", "1 HOURS"}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["Deploy", "Smoke test"])
def test_a_build_that_is_aborted_leaves_no_half_of_a_deployment(run, tmp_path, stage):
    given = ["BRANCH_NAME=main", "PROMOTE=automatic", f"ABORT=make {STEPS[stage][0]}"]
    lines, result = run(outcome("pushed"), *given, workspace=tmp_path)
    assert result == "ABORTED"
    assert made(lines)[stage] == STEPS[stage] and made(lines)["Release"] == ["undeploy"]


@pytest.mark.slow
def test_the_steps_are_really_run(run, repository, tmp_path):
    """All but NOT_RUN: lint, manifests, alerts, SBOM, a training, a deployment, a smoke test.

    The deployment is rendered by Kustomize; there is no cluster that could start it.
    """
    if shutil.which("go") is None or shutil.which("npm") is None:
        pytest.skip("no Go and Node.js here, which lint manifests and Jenkinsfile")
    debian.server("promtool", "prometheus")
    root = tmp_path / "root"
    root.mkdir()
    kubectl = tmp_path / "programs" / "kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(
        f'#!/usr/bin/env bash\necho "$@" >>{tmp_path}/kubectl\n'
        f'if [ "$3" = apply ]; then {repository}/.go-tools/linters/kustomize build "${{@: -1}}" '
        f">{tmp_path}/deployed.yaml; fi\n"
    )
    kubectl.chmod(0o755)
    real = shutil.which("make")
    make = (
        "run=(); for target; do\n"
        f'    case " {" ".join(NOT_RUN)} " in *" $target "*) {real} -n "$target" >/dev/null ||'
        ' exit 1;;\n    *) run+=("$target");; esac\n'
        f'done; [ "${{#run[@]}}" = 0 ] || exec {real} "${{run[@]}}"'
    )
    server = Server(root)
    try:
        lines, result = run(
            make,
            "BRANCH_NAME=main",
            "PROMOTE=automatic",
            f"TRAIN_ROOT={root}",
            f"SMOKE_URL={server.url}",
            "GIT_COMMIT=0123abc",
        )
    finally:
        server.stop()
    assert (made(lines), result) == (STEPS, "SUCCESS"), (tmp_path / "output").read_text()[-5000:]
    assert (repository / "build" / "train" / "report.html").is_file(), "it is archived"
    assert "answers with the score" in (tmp_path / "output").read_text()
    deployed = (tmp_path / "deployed.yaml").read_text()
    assert {*re.findall(r"image: (.*)", deployed)} == {
        "registry.example/fraud/serving:0123abc",
        "registry.example/fraud/pipeline:0123abc",
    }
    calls = (tmp_path / "kubectl").read_text().splitlines()
    verbs = [call.split()[2] for call in calls]
    assert verbs == [*["get"] * 7, "apply", "rollout", "rollout"]


@pytest.fixture
def cluster(repository, tmp_path, monkeypatch):
    """Deploys, and undoes it, with a kubectl that keeps what there is in files.

    That is the revision of a deployment, and the specification of a CronJob.

    Arguments: those of scripts/deploy.sh. Returns the exit code, and which changes were asked for.
    """
    copy, revisions = tmp_path / "checkout", tmp_path / "revisions"
    (copy / "scripts").mkdir(parents=True)
    shutil.copy(repository / "scripts" / "deploy.sh", copy / "scripts")
    revisions.mkdir()
    kubectl = tmp_path / "programs" / "kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(
        "#!/usr/bin/env bash\nshift 2\n"
        f"cd {revisions}\n"
        'case "$1 $2" in\n'
        '"get "*) cat "${2#*/}" 2>/dev/null || true ;;\n'
        '"apply "*) echo "$@" >>calls; [ ! -f refuse ] || exit 1\n'
        "    for name in $(cat change 2>/dev/null); do\n"
        '        if [[ $(cat "$name" 2>/dev/null) = {* ]]; then echo \'{"new":true}\' >"$name"\n'
        '        else number=$(cat "$name" 2>/dev/null || echo 0); echo $((number + 1)) >"$name"\n'
        "        fi\n"
        "    done ;;\n"
        '"patch "*) echo "$@" >>calls ;;\n'
        '"rollout undo") echo "$@" >>calls ;;\n'
        '"rollout status") [ ! -f stuck ] || exit 1 ;;\n'
        "*) exit 64 ;;\nesac\n"
    )
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{kubectl.parent}:{os.environ['PATH']}")

    def call(*arguments):
        (revisions / "calls").unlink(missing_ok=True)
        done = subprocess.run([copy / "scripts" / "deploy.sh", *arguments], check=False)
        calls = revisions / "calls"
        return done.returncode, calls.read_text().splitlines() if calls.exists() else []

    call.revisions = revisions
    return call


APPLY = ("apply", "production", "registry.example/fraud", "1")


def test_a_deployment_is_undone_to_what_was_there_before(cluster):
    (cluster.revisions / "fraud-serving").write_text("7\n")
    (cluster.revisions / "fraud-watch").write_text("4\n")
    (cluster.revisions / "change").write_text("fraud-serving")
    (cluster.revisions / "stuck").touch()
    assert cluster(*APPLY)[0] == 1
    (cluster.revisions / "stuck").unlink()
    undo = "rollout undo deployment/fraud-serving --to-revision=7"
    assert cluster("undo") == (0, [undo]), "the loop was not changed, and is not taken back"


def test_jobs_are_undone_too(cluster):
    """They would go on with the image that was refused, on the root of the one that works."""
    for name in ("fraud-serving", "fraud-watch"):
        (cluster.revisions / name).write_text("7\n")
    for name in ("fraud-daily", "fraud-backup"):
        (cluster.revisions / name).write_text('{"schedule":"30 3 * * *", "image":"old"}\n')
    (cluster.revisions / "change").write_text("fraud-daily")
    assert cluster(*APPLY)[0] == 0
    patch = (
        '[{"op": "replace", "path": "/spec", "value": {"schedule":"30 3 * * *", "image":"old"}}]'
    )
    undo = f"patch cronjob/fraud-daily --type=json --patch {patch}"
    assert cluster("undo") == (0, [undo]), "the backup's was not changed"


def test_every_cronjob_would_be_undone(repository):
    script = (repository / "scripts" / "deploy.sh").read_text("utf-8")
    command = re.search(r"^cronjobs=.*$", script, re.MULTILINE)
    assert command
    shown = f'{command[0]}; printf "%s\\n" "${{cronjobs[@]}}"'
    done = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True)
    base = repository / "deploy" / "kubernetes" / "base"
    found = {
        f"cronjob/{document['metadata']['name']}"
        for path in base.glob("*.yaml")
        for document in yaml.safe_load_all(path.read_text("utf-8"))
        if document and document.get("kind") == "CronJob"
    }
    assert {*done.stdout.split()} == found


def test_what_was_not_deployed_is_not_undone(cluster):
    """`kubectl rollout undo` would go back to what was there before the version that works."""
    assert cluster("undo") == (2, [])
    for name in ("fraud-serving", "fraud-watch"):
        (cluster.revisions / name).write_text("7\n")
    (cluster.revisions / "refuse").touch()
    assert cluster(*APPLY)[0] == 1
    assert cluster("undo") == (0, [])


def test_the_deployment_of_an_earlier_build_is_not_undone(cluster, monkeypatch):
    """Its notes lie in the workspace if a build is aborted before it deploys."""
    (cluster.revisions / "fraud-serving").write_text("7\n")
    (cluster.revisions / "change").write_text("fraud-serving")
    monkeypatch.setenv("BUILD_TAG", "jenkins-main-1")
    assert cluster(*APPLY)[0] == 0
    monkeypatch.setenv("BUILD_TAG", "jenkins-main-2")
    assert cluster("undo") == (2, [])
    monkeypatch.setenv("BUILD_TAG", "jenkins-main-1")
    assert cluster("undo")[0] == 0


def test_a_first_deployment_stays(cluster):
    (cluster.revisions / "change").write_text("fraud-serving fraud-watch")
    (cluster.revisions / "stuck").touch()
    assert cluster(*APPLY)[0] == 1
    assert cluster("undo") == (0, [])


def test_what_was_undone_by_hand_does_not_keep_a_deployment_off(cluster):
    """Fields that `kubectl rollout undo` wrote belong to it: applying others conflicts."""
    code, (call,) = cluster(*APPLY)
    assert code == 0 and "--server-side --force-conflicts" in call


def test_a_smoke_test_that_finds_no_server_says_so(repository):
    code = "import smoke; print(smoke.problem_of('http://127.0.0.1:1'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(repository / "scripts")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("http://127.0.0.1:1: <urlopen error")


@pytest.mark.parametrize(("given", "kept"), [([], False), (["kept"], True)])
def test_a_training_of_its_own_starts_without_a_champion(repository, tmp_path, given, kept):
    """With the model of the last build in its root, the same data would push nothing."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(repository / "scripts" / "train.sh", tmp_path / "scripts")
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    pipeline = programs / "fraud-pipeline"
    pipeline.write_text(
        "#!/usr/bin/env bash\n"
        'mkdir -p "$7/pushed"; echo "$7" >>roots; ls "$7/pushed" >>found; touch "$7/pushed/1"\n'
        """echo '{"outcome": "pushed", "run_id": "1"}'\n"""
    )
    pipeline.chmod(0o755)
    for _ in range(2):
        subprocess.run([tmp_path / "scripts" / "train.sh", "config", "data", *given], check=True)
    assert {*(tmp_path / "roots").read_text().split()} == {*(given or ["build/train/root"])}
    assert bool((tmp_path / "found").read_text()) == kept
    assert (tmp_path / "build" / "train" / "outcome").read_text() == "pushed\n"


def test_every_target_of_the_jenkinsfile_exists(repository, jenkins):
    called = re.findall(r"sh 'make (.*)'", (jenkins / "Jenkinsfile").read_text("utf-8"))
    assert len(called) == 13
    makefile = (repository / "Makefile").read_text("utf-8")
    targets = {*re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)}
    assert {name for names in called for name in names.split()} - targets == set()


def test_the_configuration_of_jenkins_contains_no_secret(jenkins):
    text = (jenkins / "jenkins.yaml").read_text("utf-8")
    configuration = yaml.safe_load(text)
    (user,) = configuration["jenkins"]["securityRealm"]["local"]["users"]
    assert user["password"] == "${JENKINS_ADMIN_PASSWORD}"
    kinds = configuration["credentials"]["system"]["domainCredentials"][0]["credentials"]
    named = set()
    for credential in kinds:
        (details,) = credential.values()
        named.add(details["id"])
        assert (details.get("secret") or details["secretBytes"]).startswith("${")
    used = re.findall(r"credentialsId: '(.*?)'", (jenkins / "Jenkinsfile").read_text("utf-8"))
    assert {*used} == named
    assert configuration["jobs"] == [{"file": "${JENKINS_CONFIGURATION}/jobs.groovy"}]


def test_only_who_may_release_may_start_a_build(jenkins):
    """A build with PROMOTE=automatic asks nobody."""
    configuration = yaml.safe_load((jenkins / "jenkins.yaml").read_text("utf-8"))
    entries = configuration["jenkins"]["authorizationStrategy"]["globalMatrix"]["entries"]
    may = {
        whose["name"]
        for entry in entries
        for whose in entry.values()
        if {"Job/Build", "Job/Configure", "Overall/Administer"} & {*whose["permissions"]}
    }
    assert may == {"admin", "fraud-release"}


def test_github_calls_the_same_targets(repository, jenkins):
    workflow = (repository / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    called = {*" ".join(re.findall(r"run: make ([a-z -]+)$", workflow, re.M)).split()}
    of_jenkins = {
        target for targets in STEPS.values() for names in targets for target in names.split()
    }
    elsewhere = {"promote", "deploy", "smoke"}  # they need a registry and a cluster
    within = {
        "lint",
        "image-lint",
        "test-modern",
    }  # of test, of image, and of test on another image
    assert called == of_jenkins - elsewhere - within | {"jenkins-test"}
    makefile = (repository / "Makefile").read_text("utf-8")
    assert re.search(r"^test: lint ", makefile, re.M) and re.search(
        r"^image: image-lint ", makefile, re.M
    )
