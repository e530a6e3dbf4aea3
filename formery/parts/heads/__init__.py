"""Heads: tokens to what the task wants."""

INDEX = {
    "classes": "classes:Classes",
    "features": "features:MapFeatures",
    "next_token": "next_token:NextToken",
    "steps": "steps:Steps",
}
