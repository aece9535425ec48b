package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"slices"
	"syscall"

	"github.com/IBM/sarama"

	"klgstream.dev/codecs"
	"klgstream.dev/deploy/devstack"
	"klgstream.dev/processors/engine"
)

// Exit codes. From 64 on they are those of sysexits.h.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 64
	exitData        = 65
	exitNoInput     = 66
	exitUnavailable = 69
	exitNoOutput    = 73
	exitNoPerm      = 77
	exitConfig      = 78
	// exitInterrupted is for work that a signal ended before it was through. A role has no such end: it exits with 0.
	exitInterrupted = 130
)

// exitMeaning is one row of the documented table.
type exitMeaning struct {
	code    int
	name    string // in sysexits.h
	meaning string
}

// exitMeanings are all ends there are; manual and documents have this table.
var exitMeanings = []exitMeaning{
	{exitOK, "EX_OK", "It did what it was asked to; a role was ended by a signal, and everything is written and committed."},
	{exitFailed, "", "It ended with an error of no other kind, or its answer is no: the doctor found something, topics differ from the plan, a figure is wrong."},
	{exitUsage, "EX_USAGE", "The command line is not understood: no such command, flag or argument."},
	{exitData, "EX_DATAERR", "What it read is not what it must be: an event, an export, a state record of a newer program."},
	{exitNoInput, "EX_NOINPUT", "A file to read is not there."},
	{exitUnavailable, "EX_UNAVAILABLE", "A broker, a database or an own address cannot be had now; trying again may help."},
	{exitNoOutput, "EX_CANTCREAT", "A file to write cannot be made."},
	{exitNoPerm, "EX_NOPERM", "The system or the broker does not allow it."},
	{exitConfig, "EX_CONFIG", "A setting is wrong, wherever it came from, or contradicts what is committed; trying again does not help."},
	{exitInterrupted, "", "A signal ended it before it was through."},
}

// exitCode is the code of the error that a command ended with.
func exitCode(ctx context.Context, err error) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return exitInterrupted
	case isType[*engine.RefusalError](err):
		return exitConfig
	case errors.Is(err, fs.ErrPermission), isAny(err, denials):
		return exitNoPerm
	case isType[*fs.PathError](err):
		return exitOfFile(err)
	case isType[*codecs.FieldError](err), isType[*dataError](err):
		return exitData
	case isType[*net.OpError](err), errors.Is(err, context.DeadlineExceeded), isAny(err, absences):
		return exitUnavailable
	}
	return exitFailed
}

// exitOfFile tells files to read from files to write: only the latter are made.
func exitOfFile(err error) int {
	switch {
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOSPC), isType[*createError](err):
		return exitNoOutput
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EISDIR):
		return exitNoInput
	}
	return exitFailed
}

// denials and absences are what brokers answer, and clients say of brokers.
var (
	denials = []error{
		sarama.ErrSASLAuthenticationFailed, sarama.ErrTopicAuthorizationFailed, sarama.ErrGroupAuthorizationFailed,
		sarama.ErrClusterAuthorizationFailed,
	}
	absences = []error{
		sarama.ErrOutOfBrokers, sarama.ErrBrokerNotAvailable, sarama.ErrNotConnected, sarama.ErrBrokerNotFound, sarama.ErrLeaderNotAvailable,
		sarama.ErrClosedClient, sarama.ErrRequestTimedOut, sarama.ErrConsumerCoordinatorNotAvailable, syscall.EADDRINUSE, devstack.ErrDataDirInUse,
	}
)

func isAny(err error, kinds []error) bool {
	return slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
}

func isType[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// dataError is a file or stream that is not what it must be.
type dataError struct{ err error }

func (e *dataError) Error() string { return e.err.Error() }
func (e *dataError) Unwrap() error { return e.err }

// createError is a file that cannot be made.
type createError struct{ err error }

func (e *createError) Error() string { return e.err.Error() }
func (e *createError) Unwrap() error { return e.err }

// usageError is a command line that is not understood; every other fault of loading is the configuration's.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }
