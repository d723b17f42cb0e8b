package main

import (
	"context"

	"relayguard/cmd/internal/desk"
)

// queueHands are the acts on the whole queue, and those on held mail that tell how
// far they are. The context of an act that is cancelled means: finish the batch in
// hand, then tell the last step, with Cut set, and return nil. A stream that was
// cut off is an error.
type queueHands interface {
	Queue(ctx context.Context, f desk.QueueFilter, line func(desk.QueueLine) error) error
	QueueSummary(ctx context.Context, f desk.QueueFilter) (desk.QueueSummary, error)
	QueueShow(ctx context.Context, l desk.QueueLook) ([]desk.QueueShown, error)
	ActOnQueue(ctx context.Context, o desk.QueueOrder, step func(desk.Step) error) error
	ListHeld(ctx context.Context, f desk.Filter, line func(desk.HeldLine) error) error
	ActOnHeld(ctx context.Context, o desk.HeldOrder, step func(desk.Step) error) error
	ListDeleted(ctx context.Context, f desk.DeletedFilter, line func(desk.DeletedLine) error) error
	ActOnDeleted(ctx context.Context, o desk.DeletedOrder, step func(desk.Step) error) error
}
