package main

import (
	"context"
	"errors"
)

type processorCmd struct {
	Kafka `group:"kafka"`
}

func (c *processorCmd) check() error                    { return nil }
func (c *processorCmd) Run(context.Context, *app) error { return errors.New("x") }

type sinkCmd struct{ processorCmd }
type apiCmd struct{ processorCmd }
type devCmd struct{ processorCmd }
