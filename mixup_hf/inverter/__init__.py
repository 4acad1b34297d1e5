"""The inverter: from an embedding back to a sentence."""
