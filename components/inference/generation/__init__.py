"""Generation: answers of decoders to prompts, greedy or sampled, behind one protocol."""
