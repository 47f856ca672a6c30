"""Chains: stages composed in one YAML file, run one after the other, each done once."""
