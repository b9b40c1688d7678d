"""The deployment files agree with each other and with the gateway: same port, same probes, same user, no secrets."""

import re
import subprocess
import tomllib

import pytest
from house_files import ROOT

from gatekeeper.config.gateway import ServerConfig

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (ROOT / "compose.yaml").read_text(encoding="utf-8")
KUBERNETES = (ROOT / "deploy" / "kubernetes.yaml").read_text(encoding="utf-8")
SECRETS = re.compile(r"\b(?:sk-[\w-]{6,}|gk_\w{6,}|postgres(?:ql)?://\w+:[^$\s{@]+@)")


def kubernetes_kinds() -> list[str]:
    return re.findall(r"^kind: (\w+)$", KUBERNETES, re.MULTILINE)


def test_the_image_does_not_run_as_root():
    last_stage = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    user = re.search(r"^USER (\S+)$", last_stage, re.MULTILINE)
    assert user and user[1] not in ("root", "0")
    uid = re.search(r"--uid (\d+)", last_stage)
    assert uid and f"runAsUser: {uid[1]}\n" in KUBERNETES
    assert last_stage.index("USER ") < last_stage.index("ENTRYPOINT")


def test_all_agree_on_the_port():
    port = re.search(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE)[1]
    assert f"PORT={port}" in DOCKERFILE
    assert f'PORT: "{port}"' in COMPOSE
    assert re.search(rf"^    ports: \[.*:{port}\"\]$", COMPOSE, re.MULTILINE)
    assert f"containerPort: {port}\n" in KUBERNETES
    example = tomllib.loads((ROOT / "gateway.toml.example").read_text(encoding="utf-8"))
    assert example["server"]["port"] == int(port)


def test_health_is_asked_where_the_gateway_answers():
    served = (ROOT / "gatekeeper" / "web" / "app.py").read_text(encoding="utf-8")
    asked = re.findall(r"/\w+z\b", re.search(r"^HEALTHCHECK.*\n.*", DOCKERFILE, re.MULTILINE)[0])
    asked += re.findall(r"path: (/\w+)$", KUBERNETES, re.MULTILINE)
    assert asked == ["/healthz", "/healthz", "/readyz"]
    assert [path for path in asked if f'"{path}"' not in served] == []


def test_what_the_image_copies_exists_and_is_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, f".dockerignore keeps {source} from the build"


def test_the_health_check_of_the_image_is_python_that_compiles():
    program = re.search(r'CMD \["python", "-c", "(.+)"\]', DOCKERFILE)[1]
    compile(program, "HEALTHCHECK", "exec")


@pytest.mark.parametrize("text", [DOCKERFILE, COMPOSE, KUBERNETES], ids=["Dockerfile", "compose", "kubernetes"])
def test_no_secret_is_written_down(text):
    assert SECRETS.findall(text) == []


def test_a_written_secret_would_be_seen():
    assert SECRETS.search("DATABASE_URL: postgresql://gatekeeper:hunter2@postgres/x")
    assert SECRETS.search("OPENAI_API_KEY=sk-proj-abcdefgh")


def test_several_gateways_need_a_database_that_they_share():
    replicas = re.search(r"^  replicas: (\d+)$", KUBERNETES, re.MULTILINE)
    assert int(replicas[1]) == 2
    assert "sqlite" not in KUBERNETES + COMPOSE
    assert kubernetes_kinds() == ["Deployment", "Service", "PodDisruptionBudget"]
    assert "secretRef:" in KUBERNETES


@pytest.mark.parametrize("grace", [r"stop_grace_period: (\d+)s", r"terminationGracePeriodSeconds: (\d+)"])
def test_there_is_more_time_to_stop_than_to_drain(grace):
    (seconds,) = re.findall(grace, COMPOSE + KUBERNETES)
    assert int(seconds) > ServerConfig().drain_s


@pytest.mark.parametrize("text", [COMPOSE, KUBERNETES], ids=["compose", "kubernetes"])
def test_the_yaml_is_indented_by_twos_without_tabs(text):
    offenders = [line for line in text.splitlines() if "\t" in line or (len(line) - len(line.lstrip())) % 2]
    assert offenders == []


def test_the_build_script_is_sound_bash_and_can_be_run():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, ".ci/run is not executable"
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, timeout=10)
    assert done.returncode == 0, done.stderr
