"""The paper's loop: E-step and M-step."""
