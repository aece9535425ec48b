-- How late do carriers leave? Minutes behind schedule at departure, from what the windows do not hold: the events' own fields.
SELECT left(payload ->> 'flight', 2) AS carrier,
       count(*) AS departures,
       round(avg(CAST(payload ->> 'delay_min' AS numeric)), 1) AS mean_delay,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY CAST(payload ->> 'delay_min' AS double precision)) AS median_delay,
       max(CAST(payload ->> 'delay_min' AS bigint)) AS longest_delay
FROM aircraft_events
WHERE event_type = 'departed'
GROUP BY left(payload ->> 'flight', 2)
ORDER BY departures DESC, carrier
