"""Names of special tokens in texts, for tokenizers such as XLM-RoBERTa's, whose special tokens are pieces too."""

import pickle
from pathlib import Path

from raypath.components.data.tokenization.tokenizer import TextTokenizer
from tests.q4_model import PIECES


def test_the_name_of_a_special_token_in_a_text_is_no_special_token(tmp_path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.Unigram(PIECES, unk_id=3, byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.add_special_tokens([AddedToken(name, special=True) for name in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")])
    made.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 0), ("</s>", 2)])
    made.save(str(tmp_path / "tokenizer.json"))
    made.encode_special_tokens = True
    assert 0 in made.encode("good <s>", add_special_tokens=False).ids, "the library alone does not keep them apart"
    tokenizer = TextTokenizer(tmp_path, 16)
    characters = [dict(map(reversed, enumerate(piece for piece, _ in PIECES)))[letter] for letter in "<s>"]
    for each in (tokenizer, pickle.loads(pickle.dumps(tokenizer))):
        assert each.encode(["good <s>", "abc"]) == [[0, 4, 5, *characters, 2], [0, 5, 7, 8, 9, 2]]
