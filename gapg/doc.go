// Package gapg post-trains a small language model to decide, at the end of its
// own reasoning, whether to answer or to ask a cloud model, and to keep its
// calls within a budget (arXiv 2509.24050).
//
// The nouns, in the order in which a step meets them:
//
//	Prompt     one question; a Task gives prompts and judges responses
//	Group      the G sampled responses (Rollouts) to one prompt, with the
//	           cloud's answer where one was asked for
//	Reward     scores each rollout of a group
//	Algorithm  chooses the groups of an update and gives every token a weight;
//	           the trainer ascends Σ weight · log π(token)
//	Trainer    rollouts, cloud, rewards, update, evaluation, checkpoints
//	Collaborator  the trained model and the cloud answering one prompt together
//
// Tasks, rewards, algorithms and clouds are plain interfaces: implement them
// outside this module and hand them to NewTrainer. Start reading at
// trainer.go, which is one step from top to bottom.
//
// The package never prints, exits or reads flags; it logs through the
// slog.Logger it is given and computes on the engine.Backend of the model it
// is given.
package gapg
