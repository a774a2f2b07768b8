// HTTPS by Go's own net/http and crypto/tls: a client and a server that play the exchanges of a plan.
//
//	client PLAN    waits for a line, sends every request of the plan, and prints a line of JSON for each reply
//	server PLAN    prints its port, and answers by the plan until its input ends
//	http1 PLAN     is a client of the matrix: see matrix.py
//	http2 PLAN     the same over HTTP/2
//	none           does nothing
//
// It needs the standard library alone, and builds with every Go from 1.15 on.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"io/ioutil"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
)

type job struct {
	ID      string            `json:"id"`
	Method  string            `json:"method"`
	Host    string            `json:"host"`
	Path    string            `json:"path"`
	Body    string            `json:"body"`
	Headers map[string]string `json:"headers"`
	Reply   struct {
		Status      int      `json:"status"`
		ContentType string   `json:"content_type"`
		Pieces      []string `json:"pieces"`
		Cut         bool     `json:"cut"`
	} `json:"reply"`
	// Of the matrix, where it isn't the plan's.
	Address string `json:"address"`
	Port    int    `json:"port"`
}

type plan struct {
	Address    string `json:"address"`
	CA         string `json:"ca"`
	Key        string `json:"key"`
	HTTP2      bool   `json:"http2"`
	Concurrent int    `json:"concurrent"`
	// The reader that a client reads a reply with: "whole", or "raw" for tls.Conn and a buffer on the
	// goroutine's stack.
	Mode string `json:"mode"`
	// Goroutines are stopped again and again, most of them where a function begins.
	Restless bool  `json:"restless"`
	Jobs     []job `json:"jobs"`
	// Of the matrix: where the server is, and the calls of each connection.
	Port        int     `json:"port"`
	Connections [][]job `json:"connections"`
}

type outcome struct {
	ID     string `json:"id"`
	Status int    `json:"status"`
	Proto  string `json:"proto"`
	Error  string `json:"error,omitempty"`
}

func main() {
	log.SetOutput(os.Stderr)
	if os.Args[1] == "none" {
		return
	}
	text, err := ioutil.ReadFile(os.Args[2])
	check(err)
	var p plan
	check(json.Unmarshal(text, &p))
	// A test that hangs fails instead.
	time.AfterFunc(2*time.Minute, func() { log.Fatal("too slow") })
	if p.Restless {
		go func() {
			for {
				runtime.GC()
				time.Sleep(100 * time.Microsecond)
			}
		}()
	}
	switch os.Args[1] {
	case "server":
		p.serve()
	case "client":
		bufio.NewReader(os.Stdin).ReadString('\n')
		p.send()
	default:
		p.HTTP2 = os.Args[1] == "http2"
		p.Address = fmt.Sprint(p.Address, ":", p.Port)
		p.sendMatrix()
	}
}

// The calls of a connection in turn, connections at once.
func (p *plan) sendMatrix() {
	var workers sync.WaitGroup
	var output sync.Mutex
	for _, calls := range p.Connections {
		calls := calls
		workers.Add(1)
		go func() {
			defer workers.Done()
			own := *p
			if calls[0].Address != "" {
				own.Address = fmt.Sprint(calls[0].Address, ":", calls[0].Port)
			}
			transport := own.transport()
			client := &http.Client{Transport: transport}
			for i := range calls {
				calls[i].Method = "POST"
				o := calls[i].send(client)
				line, err := json.Marshal(o)
				check(err)
				output.Lock()
				fmt.Println(string(line))
				output.Unlock()
			}
			transport.CloseIdleConnections()
		}()
	}
	workers.Wait()
	// Connections end in goroutines of their own.
	time.Sleep(100 * time.Millisecond)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func (p *plan) config() *tls.Config {
	pem, err := ioutil.ReadFile(p.CA)
	check(err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		log.Fatal("no certificate in ", p.CA)
	}
	return &tls.Config{RootCAs: roots}
}

func (p *plan) transport() *http.Transport {
	return &http.Transport{
		TLSClientConfig:     p.config(),
		ForceAttemptHTTP2:   p.HTTP2,
		MaxIdleConnsPerHost: p.Concurrent,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, p.Address)
		},
	}
}

func (p *plan) send() {
	transport := p.transport()
	client := &http.Client{Transport: transport}
	jobs := make(chan *job)
	var workers sync.WaitGroup
	var output sync.Mutex
	for i := 0; i < p.Concurrent; i++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for j := range jobs {
				var o outcome
				if p.Mode == "raw" {
					o = p.raw(j)
				} else {
					o = j.send(client)
				}
				line, err := json.Marshal(o)
				check(err)
				output.Lock()
				fmt.Println(string(line))
				output.Unlock()
			}
		}()
	}
	for i := range p.Jobs {
		jobs <- &p.Jobs[i]
	}
	close(jobs)
	workers.Wait()
	transport.CloseIdleConnections()
	// Connections end in goroutines of their own.
	time.Sleep(100 * time.Millisecond)
}

func (j *job) send(client *http.Client) outcome {
	o := outcome{ID: j.ID}
	body, err := ioutil.ReadFile(j.Body)
	check(err)
	request, err := http.NewRequest(j.Method, "https://"+j.Host+j.Path, bytes.NewReader(body))
	check(err)
	for name, value := range j.Headers {
		request.Header.Set(name, value)
	}
	response, err := client.Do(request)
	if err != nil {
		o.Error = err.Error()
		return o
	}
	o.Status, o.Proto = response.StatusCode, response.Proto
	if _, err = io.Copy(ioutil.Discard, response.Body); err != nil {
		o.Error = err.Error()
	}
	response.Body.Close()
	return o
}

// The connection's own methods, called without an interface between, so that the buffer of the reads
// need not escape; its goroutine's stack grows between two reads and moves it to another place.
func (p *plan) raw(j *job) outcome {
	o := outcome{ID: j.ID}
	config := p.config()
	config.ServerName = j.Host
	conn, err := tls.Dial("tcp", p.Address, config)
	check(err)
	defer conn.Close()
	body, err := ioutil.ReadFile(j.Body)
	check(err)
	head := j.Method + " " + j.Path + " HTTP/1.1\r\nhost: " + j.Host + "\r\nconnection: close\r\n"
	for name, value := range j.Headers {
		head += name + ": " + value + "\r\n"
	}
	_, err = conn.Write(append([]byte(head+fmt.Sprintf("content-length: %d\r\n\r\n", len(body))), body...))
	check(err)
	var reply strings.Builder
	readAll(conn, &reply, 0)
	if _, err = fmt.Sscanf(reply.String(), "%s %d", &o.Proto, &o.Status); err != nil {
		o.Error = err.Error()
	}
	return o
}

//go:noinline
func readAll(conn *tls.Conn, reply *strings.Builder, depth int) {
	var buffer [700]byte
	n, err := conn.Read(buffer[:])
	reply.Write(buffer[:n])
	if err == nil {
		readAll(conn, reply, depth+1)
	}
}

func (p *plan) serve() {
	replies := make(map[string]*job)
	for i := range p.Jobs {
		replies[p.Jobs[i].ID] = &p.Jobs[i]
	}
	handler := func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(ioutil.Discard, r.Body)
		j := replies[r.Header.Get("x-demo-id")]
		if err != nil || j == nil {
			http.Error(w, "not in the plan", http.StatusNotFound)
			return
		}
		w.Header().Set("content-type", j.Reply.ContentType)
		w.WriteHeader(j.Reply.Status)
		for _, piece := range j.Reply.Pieces {
			io.WriteString(w, piece)
			if len(j.Reply.Pieces) > 1 {
				w.(http.Flusher).Flush()
			}
		}
		if j.Reply.Cut {
			panic(http.ErrAbortHandler)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	server := &http.Server{Handler: http.HandlerFunc(handler)}
	go func() { check(server.ServeTLS(listener, p.CA, p.Key)) }()
	bufio.NewReader(os.Stdin).ReadString('\n')
	server.Close()
	os.Exit(0)
}
