"""YAML that says what it means: safe types only, each key once and as text, no aliases."""

import yaml

from textnorm_lib.checks import shown


class KeyTwice(Exception):
    """A key that a mapping holds twice; YAML would silently keep the second."""


class Alias(Exception):
    """A value that is named elsewhere; a few lines of these can stand for more than any memory holds."""


class StrictLoader(yaml.SafeLoader):
    """YAML's safe loader, without tolerance for a key given twice and for aliases."""

    def compose_node(self, parent, index):
        """A node, unless it is an alias."""
        if self.check_event(yaml.AliasEvent):
            raise Alias(self.peek_event().anchor)
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        """A mapping whose keys are texts, each there once."""
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise TypeError(f"the key {shown(key.value)} is no text")
            if key.value in seen:
                raise KeyTwice(key.value)
            seen.add(key.value)
        return super().construct_mapping(node, deep)
