"""Whatever is changed for the time of a block is as before afterwards, after an error too."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
import transformers

from raypath.components import Dataset, workflow
from raypath.components.core.errors import DataError, GraphError
from raypath.components.core.params import Params
from raypath.components.evaluate import EvaluateParams, evaluate
from raypath.components.inference.backends.openvino_export import _quiet
from raypath.components.inference.pooling import full_encoder
from raypath.components.models.encoders.fast_bert import read_first_token_only, replayed_features
from raypath.components.models.heads.head_check import check_head
from raypath.components.serving.observability.request_context import (
    RequestContext,
    current_request,
    may_use,
    models_scope,
    request_scope,
)


class Broken(Exception):
    """An error within a block."""


def broken(block: AbstractContextManager[Any], within: Callable[[], None] = lambda: None) -> None:
    """Run a block that fails."""

    def run() -> None:
        with block:
            within()
            raise Broken

    with pytest.raises(Broken):
        run()


@pytest.fixture
def bert() -> Any:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    config = transformers.BertConfig(**shape, vocab_size=100, num_labels=3, hidden_dropout_prob=0.5)
    return transformers.BertForSequenceClassification(config).eval()


def test_an_encoder_encodes_again_after_features_were_replayed(bert: Any) -> None:
    ids = torch.arange(8)[None]
    with torch.no_grad():
        wanted = bert(input_ids=ids).logits
        replayed = torch.zeros(1, 1, 32)

        def within() -> None:
            assert bert.base_model(inputs_embeds=replayed).last_hidden_state is replayed

        broken(replayed_features(bert), within)
        torch.testing.assert_close(bert(input_ids=ids).logits, wanted)
    assert "forward" not in vars(bert.base_model)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fits", [True, False])
def test_a_head_is_checked_without_dropout_and_the_mode_stays(bert: Any, training: bool, fits: bool) -> None:
    bert.train(training)
    if not fits:
        bert.base_model.register_forward_hook(lambda *_: (_ for _ in ()).throw(ValueError))
    with contextlib.nullcontext() if fits else pytest.raises(DataError, match="method=head needs a head that reads"):
        check_head(bert)
    assert bert.training is training
    assert bert.base_model.training is training


def test_the_encoder_for_embeddings_computes_all_tokens_and_leaves_the_model(bert: Any) -> None:
    ids = torch.arange(8)[None]
    with torch.no_grad():
        wanted = bert.base_model(input_ids=ids).last_hidden_state
        assert read_first_token_only(bert)
        logits = bert(input_ids=ids).logits
        body = full_encoder(bert)
        torch.testing.assert_close(body(input_ids=ids).last_hidden_state, wanted)
        assert bert.base_model(input_ids=ids).last_hidden_state.shape == (1, 1, 32)
        torch.testing.assert_close(bert(input_ids=ids).logits, logits)
    weights = dict(bert.base_model.named_parameters())
    assert all(part is weights[name] for name, part in body.named_parameters())
    assert full_encoder(bert.base_model) is None, "it has no head"


def test_logs_and_output_are_silent_while_a_model_is_converted(capsys: pytest.CaptureFixture[str]) -> None:
    before, out = logging.root.manager.disable, sys.stdout

    def within() -> None:
        print("progress")
        assert not logging.getLogger("torch").isEnabledFor(logging.WARNING)
        assert logging.getLogger("torch").isEnabledFor(logging.ERROR)

    broken(_quiet(), within)
    assert (logging.root.manager.disable, sys.stdout) == (before, out)
    print("shown")
    assert capsys.readouterr().out == "shown\n"


def test_a_request_is_current_as_long_as_it_lasts() -> None:
    request = RequestContext(id="a")
    broken(request_scope(request), lambda: current_request().served_by("shop", 3))
    assert (request.model, request.version, request.role) == ("shop", 3, "main")
    assert current_request() is not request

    def within() -> None:
        assert (may_use("shop"), may_use("other")) == (True, False)

    broken(models_scope(("shop",)), within)
    assert may_use("other")


def test_a_workflow_that_fails_leaves_no_graph_to_draw_into() -> None:
    @workflow
    def failing(p: Params) -> Dataset:
        raise Broken

    with pytest.raises(Broken):
        failing.trace(Params())
    with pytest.raises(GraphError, match="outside"):
        evaluate(None, None, EvaluateParams())  # type: ignore[arg-type]
