"""Other gateways on the same work: LiteLLM from PyPI and Portkey from npm, each in a folder of its own.

The rule: they run as they come, one worker, without a database. They write answers anew, so bytes are not compared.
"""

import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from bench.systems import Rig, System, free_port, spawn

FOLDER = Path(__file__).with_name(".peers")
INSTALL_TIMEOUT_S = 600.0
_LITELLM = FOLDER / "litellm"
_PORTKEY = FOLDER / "portkey"
_PORTKEY_SERVER = _PORTKEY / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"

LITELLM_CONFIG = """
model_list:
  - model_name: gpt-4o-mini
    litellm_params:
      model: openai/gpt-4o-mini
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: sk-upstream
general_settings:
  master_key: sk-bench
  forward_client_headers_to_llm_api: true
litellm_settings:
  telemetry: false
  num_retries: 0
"""


def install() -> dict[str, str]:
    """Install what is not there yet; why a peer cannot be had, by name."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")
    absent = {}
    steps = {
        "litellm": [
            [sys.executable, "-m", "venv", str(_LITELLM)],
            [str(_LITELLM / "bin" / "pip"), "install", "--quiet", "litellm[proxy]"],
        ],
        "portkey": [["npm", "install", "--prefix", str(_PORTKEY), "--no-audit", "--no-fund", "@portkey-ai/gateway"]],
    }
    present = {"litellm": _LITELLM / "bin" / "litellm", "portkey": _PORTKEY_SERVER}
    for name, commands in steps.items():
        if present[name].exists():
            continue
        if name == "portkey" and shutil.which("npm") is None:
            absent[name] = "npm is not installed"
            continue
        try:
            for command in commands:
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
        except subprocess.CalledProcessError as error:
            absent[name] = f"its installation failed: {error.stderr.strip()[-200:]}"
        except subprocess.TimeoutExpired:
            absent[name] = f"its installation took longer than {INSTALL_TIMEOUT_S:.0f} s"
    return absent


def start_litellm(rig: Rig, stack: ExitStack) -> System:
    """One worker, a master key, no database."""
    config = rig.folder / "litellm.yaml"
    config.write_text(LITELLM_CONFIG.format(upstream=rig.provider_port))
    system = System("litellm", free_port(), rewrites=True)
    command = [str(_LITELLM / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1"]
    return spawn(rig, stack, system, [*command, "--port", str(system.port), "--num_workers", "1"])


def start_portkey(rig: Rig, stack: ExitStack) -> System:
    """The headers of a call say where it goes."""
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{rig.provider_port}/v1",
        "x-portkey-forward-headers": "x-bench",
    }
    system = System("portkey", free_port(), rewrites=True, headers=headers)
    return spawn(rig, stack, system, ["node", str(_PORTKEY_SERVER), f"--port={system.port}", "--headless"])


START = {"litellm": start_litellm, "portkey": start_portkey}
