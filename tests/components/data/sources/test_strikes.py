"""The sample of conversations: remarks on bird strikes, and their records as JSON."""

import json
import re

from raypath.components.data.sources.samples import RECORD, load_sample, sample_files


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
