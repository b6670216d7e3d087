"""The sample of conversations: remarks on bird strikes, and their records as JSON."""

import json
import re

from raypath.components.data.sources.bird_strikes import RECORD
from raypath.components.data.sources.samples import load_sample, sample_files


def test_each_record_has_what_its_remark_names() -> None:
    [(path, split)] = sample_files("sample://strikes")
    rows = load_sample(path)["messages"].to_pylist()
    assert (len(rows), split) == (666, "")
    for system, user, assistant in rows:
        assert [each["role"] for each in (system, user, assistant)] == ["system", "user", "assistant"]
        assert system["content"] == RECORD
        record = json.loads(assistant["content"])
        assert list(record) == ["animal", "phase", "number"]
        assert record["number"] in ("1", "2-10", "11-100", "Over 100")
        named = re.findall("[a-z]+", record["animal"])[-1].removesuffix("s").removesuffix("eese").removesuffix("oose")
        assert named in user["content"].lower()
        assert 20 <= len(user["content"]) <= 80
    remarks = [row[1]["content"] for row in rows]
    assert len(set(remarks)) == len(remarks)
    assert not any("PILOT =" in remark for remark in remarks), "which is followed by a name"


def test_each_pair_has_the_record_and_one_with_a_wrong_field() -> None:
    [(path, split)] = sample_files("sample://strike_pairs")
    rows = load_sample(path, "sample://strike_pairs").to_pylist()
    assert (len(rows), split) == (329, "")
    taught = {turns[1]["content"] for turns in load_sample(path, "sample://strikes")["messages"].to_pylist()}
    for number, row in enumerate(rows):
        assert [turn["role"] for turn in row["prompt"]] == ["system", "user"]
        assert 81 <= len(row["prompt"][1]["content"]) <= 120
        assert row["prompt"][1]["content"] not in taught, "no remark is in both samples"
        chosen, rejected = json.loads(row["chosen"]), json.loads(row["rejected"])
        wrong = [field for field in chosen if chosen[field] != rejected[field]]
        assert wrong == [("animal", "phase", "number")[number % 3]]
        assert list(rejected) == list(chosen)
