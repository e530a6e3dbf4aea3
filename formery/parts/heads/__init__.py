"""Heads: tokens to what the task wants."""

INDEX = {
    "branch_classes": "branch_classes:BranchClasses",
    "classes": "classes:Classes",
    "distilled": "distilled:Distilled",
    "features": "features:MapFeatures",
    "mlp_classes": "mlp_classes:MLPClasses",
    "map_and_token": "map_and_token:MapAndToken",
    "next_token": "next_token:NextToken",
    "steps": "steps:Steps",
}
