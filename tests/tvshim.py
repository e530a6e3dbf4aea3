"""`import tests.tvshim` makes timm, transformers and lightning importable beside a torchvision of another build."""

from formery.interop.torchvision import declare_missing_operators

DECLARED = declare_missing_operators()
