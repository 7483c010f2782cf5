#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the small checkpoints beside this file: random weights (seed 0) in the real architectures and file layouts.

They are committed, so that serving them takes no torch.  To make them anew, with the pinned versions:

    tests/venv venv-models && build/venv-models/bin/python tests/models/make.py [FOLDER]
"""
from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import (ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, BertConfig, BertForMaskedLM, BertModel, CLIPConfig,
                          CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer, PreTrainedTokenizerFast, ViTConfig,
                          ViTForImageClassification, ViTImageProcessor)

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 37}
WORDS = "the a cat dog bird sat ran on mat log in park and is was it of to hello world company model private public".split()
IMAGE = {"height": 32, "width": 32}


def wordpiece() -> PreTrainedTokenizerFast:
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    pieces = [*special.values(), *"abcdefghijklmnopqrstuvwxyz", *(word for word in WORDS if len(word) > 1), ".", ",", "?", "!",
              *(f"##{end}" for end in ("s", "ed", "ing", "er", "ly", "e", "n", "t", "y"))]
    tokenizer = Tokenizer(WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
                                                             special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special)


def bert_config(tokenizer: PreTrainedTokenizerFast) -> BertConfig:
    return BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **SMALL)


def bert(folder: Path) -> None:
    tokenizer = wordpiece()
    BertForMaskedLM(bert_config(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def minilm(folder: Path) -> None:
    source = folder / "transformer"
    tokenizer = wordpiece()
    BertModel(bert_config(tokenizer)).save_pretrained(source)
    tokenizer.save_pretrained(source)
    body = Transformer(str(source), max_seq_length=64)
    model = SentenceTransformer(modules=[body, Pooling(SMALL["hidden_size"], "mean"), Normalize()], device="cpu")
    shutil.rmtree(source)
    model.save(str(folder), create_model_card=False)
    (folder / "2_Normalize").mkdir(exist_ok=True)


def vit(folder: Path) -> None:
    ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, num_labels=3, **SMALL)).save_pretrained(folder)
    ViTImageProcessor(size=IMAGE).save_pretrained(folder)


def ast(folder: Path) -> None:
    ASTForAudioClassification(ASTConfig(max_length=64, num_mel_bins=16, num_labels=4, **SMALL)).save_pretrained(folder)
    ASTFeatureExtractor(max_length=64, num_mel_bins=16).save_pretrained(folder)


def clip(folder: Path) -> None:
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<|startoftext|>", "<|endoftext|>", *symbols, *(symbol + "</w>" for symbol in symbols), "he"]
    folder.mkdir(parents=True)
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    vocab.write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}, ensure_ascii=False), "utf-8")
    merges.write_text("#version: 0.2\nh e\n", "utf-8")
    text = {**SMALL, "vocab_size": 600, "max_position_embeddings": 77, "projection_dim": 16, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {**SMALL, "image_size": 32, "patch_size": 8, "projection_dim": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    tokenizer = CLIPTokenizer.from_pretrained(str(folder))
    CLIPProcessor(CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=IMAGE), tokenizer).save_pretrained(folder)


MODELS = {"google-bert/bert-base-uncased": bert, "sentence-transformers/all-MiniLM-L6-v2": minilm, "google/vit-base-patch16-224": vit,
          "MIT/ast-finetuned-audioset-10-10-0.4593": ast, "openai/clip-vit-base-patch32": clip}


def main() -> None:
    top = Path(sys.argv[1] if len(sys.argv) > 1 else __file__).absolute()
    top = top if top.is_dir() else top.parent
    for name, make in MODELS.items():
        folder = top / name
        shutil.rmtree(folder, ignore_errors=True)
        torch.manual_seed(0)
        make(folder)
        sizes = [path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()]
        print(f"{name}: {len(sizes)} files, {sum(sizes):,} bytes")


if __name__ == "__main__":
    main()
