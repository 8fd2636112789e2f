"""The decision: desired against recorded, as data. Reads relations; performs nothing."""
