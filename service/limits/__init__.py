"""How much memory and queue each client may use, and what a refusal says."""
