"""Shell completion: commands and options, workflows, settings, steps and runs.

`raypath completion SHELL` prints the script; the shell then calls `raypath` itself for the words.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

HOW = {
    "bash": 'eval "$(raypath completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(raypath completion zsh)"   # in ~/.zshrc, after compinit',
    "fish": "raypath completion fish | source   # in ~/.config/fish/config.fish",
}


def script(shell: str) -> str:
    """Return the completion script of a shell: bash, zsh or fish."""
    from argcomplete.shell_integration import shellcode

    # argcomplete's script for bash serves zsh too.
    # It starts no shell, its argument is only called so.
    code: str = shellcode(["raypath"], shell="fish" if shell == "fish" else "bash")  # nosec
    return f"# {HOW[shell]}\n{code}"


def complete(parser: argparse.ArgumentParser) -> None:
    """Print the words for the line that the shell has passed in the environment, and end the process."""
    import argcomplete

    for command in _commands(parser):
        for action in command._actions:
            completer = COMPLETERS.get(action.dest) if action.choices is None else None
            if completer is not None:
                action.completer = completer  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def _commands(parser: argparse.ArgumentParser) -> Iterable[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _commands(inner)


def _workflows(**_: Any) -> list[str]:
    from raypath.deploy.execution.workflow_loader import built_in_workflows

    return list(built_in_workflows())


def _settings(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    from raypath.components.core.params import known_keys

    return [f"{key}=" for key in known_keys(_graph(parsed_args).params.__class__)]


def _steps(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    return [node.name for node in _graph(parsed_args).nodes]


def _graph(args: argparse.Namespace) -> Any:
    from raypath.deploy.execution.workflow_loader import load_workflow

    return load_workflow(getattr(args, "workflow", "batch_prediction")).trace()


def _runs(**_: Any) -> list[str]:
    from raypath.deploy.api.project import home_folder
    from raypath.deploy.execution.run_history import load_runs

    return ["last", *(run.id for run in load_runs(home_folder()))]


def _models(**_: Any) -> list[str]:
    return sorted({name for name, _ in _registered()})


def _allowed_models(prefix: str = "", **_: Any) -> list[str]:
    """Return lists of models, one longer than what is typed."""
    begun = prefix.rpartition(",")[0].split(",") if "," in prefix else []
    names = [name for name in _models() if name not in begun]
    return [",".join([*begun, name]) for name in names] + ([] if begun else ["all"])


def _versions(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    return [str(version) for name, version in _registered() if name == parsed_args.registered]


def _registered() -> list[tuple[str, int]]:
    """Return the models that runs of this home registered, without asking MLflow, which may be down."""
    from raypath.deploy.api.project import home_folder
    from raypath.deploy.execution.run_history import load_runs

    made = (step.artifact or {} for run in load_runs(home_folder()) for step in run.steps)
    return sorted({(each["name"], each["version"]) for each in made if "alias" in each})


COMPLETERS: dict[str, Any] = {
    "workflow": _workflows,
    "settings": _settings,
    "fresh": _steps,
    "run": _runs,
    "registered": _models,
    "allowed_models": _allowed_models,
    "version": _versions,
}
"""By destination of an argument."""
